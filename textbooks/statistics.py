"""Rates with intervals, paired comparisons, and what a study of this size could have seen.

Outcomes are 0/1 or rates: (problems,) of one model, or (seeds, problems) of one arm. Seeds are averaged first and
the problems are resampled, so an interval speaks of other problems of the same kind, for these trained models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that of `k` programs, drawn from `n` of which `c` are correct, one is: 1 - C(n-c, k) / C(n, k).

    Unbiased for the chance that one of k fresh programs is correct (Chen et al. 2021, arXiv 2107.03374, equation 1).
    The division is of whole numbers, so it is exact to the last bit for every n. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n = {n}, c = {c}, k = {k}")
    sets = math.comb(n, k)
    return (sets - math.comb(n - c, k)) / sets


def bootstrap_rate(outcomes: ArrayLike, seed: int) -> Interval:
    """The mean of `outcomes` and its 95 % percentile interval (Efron 1979), resampling problems.

    Where all problems are failed, or all solved, resampling shows no spread; there the open end is the exact
    binomial one (Clopper and Pearson 1934): 0 of 200 problems still leaves room for 1.8 %.
    """
    rates = _by_problem(outcomes)
    interval, certain = _bootstrap_mean(rates, seed), TAIL ** (1 / rates.size)
    if not rates.any():
        return Interval(0.0, 0.0, 1 - certain)
    return Interval(1.0, certain, 1.0) if (rates == 1).all() else interval


def paired_difference(a: ArrayLike, b: ArrayLike, seed: int) -> Interval:
    """Mean of a - b and its 95 % interval: both arms keep the same resampled problems, so what makes a problem hard
    for both cancels. Raises ValueError if they were not asked the same number of problems."""
    return _bootstrap_mean(_differences(a, b), seed)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p that the problems on which two arms differ favour neither: a fair coin tossed once for each.

    With one seed this is McNemar's test (Psychometrika 1947) in its exact, binomial form; with several, the sign
    test (Dixon and Mood 1946) on the means over seeds. Raises ValueError as `paired_difference`.
    """
    differences = _differences(a, b)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    tosses = wins + losses
    tail = sum(math.comb(tosses, i) for i in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**tosses)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p, in the order given: those below 0.05 may all be believed with a 5 % risk of even one error.
    (Holm, Scandinavian Journal of Statistics 1979.)"""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def detectable(a: ArrayLike, b: ArrayLike, power: float = 0.8) -> float:
    """The smallest true difference of two rates that this many problems would have shown (two-sided, 5 %) with this
    power: (z(0.975) + z(power)) standard errors of the paired differences, by the normal approximation.

    The spread is taken as at least that of one problem solved by one arm alone: two arms that never differed were
    not measured without error. Raises ValueError as `paired_difference`.
    """
    differences = _differences(a, b)
    spread = max(differences.std(), 1 / math.sqrt(differences.size))
    normal = NormalDist()
    return float((normal.inv_cdf(1 - TAIL) + normal.inv_cdf(power)) * spread / math.sqrt(differences.size))


def _by_problem(outcomes: ArrayLike) -> np.ndarray:
    """(problems,) or (seeds, problems) -> (problems,): the mean over seeds."""
    array = np.asarray(outcomes, dtype=float)
    if array.ndim not in (1, 2) or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"outcomes must be 0 to 1, of shape (problems,) or (seeds, problems); these have shape {array.shape}"
        )
    return array if array.ndim == 1 else array.mean(axis=0)


def _differences(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    one, other = _by_problem(a), _by_problem(b)
    if one.shape != other.shape:
        raise ValueError(f"both arms must be asked the same problems, not {one.size} and {other.size} of them")
    return np.round(one - other, 9)  # means over seeds that differ by rounding are equal


def _bootstrap_mean(values: np.ndarray, seed: int) -> Interval:
    """Drawing problems with replacement is drawing how often each distinct value comes: quicker, and the same."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=DRAWS)
    low, high = np.quantile(drawn @ distinct / values.size, [TAIL, 1 - TAIL])
    return Interval(float(values.mean()), float(low), float(high))
