"""Statistics of the case study, against brute force, worked examples and simulation."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from textbooks.statistics import (
    Interval,
    bootstrap_rate,
    detectable,
    holm,
    mcnemar,
    paired_difference,
    pass_at_k,
)

outcomes = arrays(float, st.integers(1, 30), elements=st.sampled_from([0.0, 1.0]))
two_arms = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[arrays(float, n, elements=st.sampled_from([0.0, 1.0]))] * 2)
)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@st.composite
def samples(draw):
    n = draw(st.integers(1, 9))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@pytest.mark.oracle
@given(samples())
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_correct_program(sample):
    n, c, k = sample
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


@given(st.integers(1, 2000), st.data())
def test_pass_at_1_is_the_plain_rate_at_any_size(n, data):
    c = data.draw(st.integers(0, n))
    assert pass_at_k(n, c, 1) == c / n


@pytest.mark.oracle
def test_pass_at_k_agrees_with_the_product_form_of_the_paper_where_it_is_hard():
    n, c, k = 10_000, 3, 200
    product_form = 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
    assert pass_at_k(n, c, k) == pytest.approx(product_form, rel=1e-12)


@pytest.mark.parametrize("n, c, k", [(5, 6, 1), (5, -1, 1), (5, 2, 0), (5, 2, 6)])
def test_an_impossible_pass_at_k_is_refused_in_a_sentence(n, c, k):
    with pytest.raises(ValueError, match=f"not n = {n}, c = {c}, k = {k}"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_nineteen_of_twenty_intervals_hold_the_true_rate(rate):
    rng = np.random.default_rng(0)
    intervals = [bootstrap_rate(rng.random(200) < rate, seed) for seed in range(600)]
    covered = np.mean([interval.low <= rate <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.975  # 3 standard errors below and above 0.95


def test_paired_intervals_hold_the_true_difference_however_alike_the_arms_are():
    rng = np.random.default_rng(1)
    covered = []
    for seed in range(600):
        hard = rng.random(200)  # one draw for both arms: they fail on the same problems
        a, b = hard < 0.6, hard + 0.1 * rng.standard_normal(200) < 0.5
        interval = paired_difference(a, b, seed)
        covered.append(interval.low <= 0.6 - 0.5 <= interval.high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(2)
    hard = rng.random(300)
    a, b = hard < 0.6, hard < 0.5
    paired = paired_difference(a, b, 0)
    unpaired = paired_difference(a, rng.permutation(b), 0)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


@pytest.mark.oracle
def test_the_grouped_bootstrap_has_the_quantiles_of_the_plain_one():
    rng = np.random.default_rng(3)
    rates = rng.integers(0, 4, size=120) / 3
    plain = rates[rng.integers(0, 120, size=(20_000, 120))].mean(axis=1)
    interval = bootstrap_rate(rates, 0)
    assert np.quantile(plain, [0.025, 0.975]) == pytest.approx([interval.low, interval.high], abs=0.004)


@given(outcomes, st.integers(0, 5))
def test_an_interval_holds_its_value_and_does_not_mind_the_order_of_the_problems(rates, seed):
    interval = bootstrap_rate(rates, seed)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    again = bootstrap_rate(rates[::-1], seed)
    assert (again.low, again.high) == (interval.low, interval.high)
    assert again.value == pytest.approx(interval.value)


@pytest.mark.oracle
@pytest.mark.parametrize("problems", [1, 50, 200])
def test_no_success_at_all_leaves_room_for_the_exact_binomial_bound(problems):
    none, every = bootstrap_rate(np.zeros(problems), 0), bootstrap_rate(np.ones((2, problems)), 0)
    assert (none.value, none.low) == (0, 0) and (every.value, every.high) == (1, 1)
    assert (1 - none.high) ** problems == pytest.approx(0.025)  # so rare that none is seen one time in forty
    assert every.low == pytest.approx(1 - none.high)


def test_seeds_are_averaged_before_problems_are_drawn():
    seeds = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [1, 0, 0, 1, 0]])
    assert bootstrap_rate(seeds, 4) == bootstrap_rate(seeds.mean(axis=0), 4)
    assert paired_difference(seeds, np.zeros(5), 4) == paired_difference(seeds.mean(axis=0), np.zeros(5), 4)


def test_thrice_the_seeds_with_equal_outcomes_are_no_more_evidence():
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 80)) < 0.5
    assert mcnemar(np.stack([a] * 3), np.stack([b] * 3)) == mcnemar(a, b)
    assert paired_difference(np.stack([a] * 3), np.stack([b] * 3), 0) == paired_difference(a, b, 0)


@given(two_arms)
def test_swapping_the_arms_changes_the_sign_and_nothing_else(arms):
    a, b = arms
    forth, back = paired_difference(a, b, 0), paired_difference(b, a, 0)
    assert forth.value == -back.value
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=0.05)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert detectable(a, b) == detectable(b, a)


@pytest.mark.oracle
@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5))
def test_mcnemar_counts_the_coin_tosses_at_least_as_lopsided(wins, losses, ties):
    a = np.array([1] * wins + [0] * losses + [1] * ties)
    b = np.array([0] * wins + [1] * losses + [1] * ties)
    heads = [sum(tosses) for tosses in product([0, 1], repeat=wins + losses)]
    lopsided = [abs(2 * h - wins - losses) >= abs(wins - losses) for h in heads]
    assert mcnemar(a, b) == pytest.approx(np.mean(lopsided), abs=1e-12)


@pytest.mark.oracle
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    scipy = pytest.importorskip("scipy.stats")
    a, b = np.array([1] * wins + [0] * losses + [0]), np.array([0] * wins + [1] * losses + [0])
    expected = scipy.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_means_over_seeds_that_differ_by_rounding_alone_are_ties():
    a, b = np.tile([[0.1], [0.2], [0.3]], 8), np.tile([[0.3], [0.2], [0.1]], 8)
    assert (a.mean(axis=0) != b.mean(axis=0)).all()
    assert mcnemar(a, b) == 1.0


def test_holm_on_an_example_worked_by_hand():
    # sorted: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, and 0.04 x 1 is raised to its forerunner's 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_keeps_the_order_never_lowers_a_p_and_stays_below_bonferroni(ps):
    adjusted = holm(ps)
    assert all(p <= q <= min(1, len(ps) * p) for p, q in zip(ps, adjusted, strict=True))
    by_p = [q for _, q in sorted(zip(ps, adjusted, strict=True))]
    assert by_p == sorted(by_p)
    assert adjusted[ps.index(min(ps))] == min(1, len(ps) * min(ps))


@given(p_values, st.randoms())
def test_holm_does_not_mind_the_order_of_the_hypotheses(ps, random):
    places = list(range(len(ps)))
    random.shuffle(places)
    adjusted = holm(ps)
    assert holm([ps[i] for i in places]) == [adjusted[i] for i in places]


def test_holm_is_wrong_even_once_in_at_most_one_family_of_twenty():
    rng = np.random.default_rng(6)
    families = rng.random((4000, 5))  # no hypothesis is true
    errors = np.mean([min(holm(list(family))) < 0.05 for family in families])
    assert 0.035 <= errors <= 0.06


@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_detectable_difference_is_detected_with_its_power(power):
    rng = np.random.default_rng(7)
    problems, discordant = 250, 0.3

    def arms(difference):
        u = rng.random(problems)
        return u < (discordant + difference) / 2, u > 1 - (discordant - difference) / 2

    smallest = np.mean([detectable(*arms(0.0), power) for _ in range(50)])
    found = [paired_difference(*arms(smallest), seed).low > 0 for seed in range(600)]
    assert np.mean(found) == pytest.approx(power, abs=0.05)


def test_four_times_the_problems_show_half_the_difference():
    rng = np.random.default_rng(8)
    a, b = rng.random((2, 200)) < 0.5
    assert detectable(np.tile(a, 4), np.tile(b, 4)) == pytest.approx(detectable(a, b) / 2)


def test_two_arms_that_never_differ_are_not_measured_without_error():
    same = np.ones(200)
    assert paired_difference(same, same, 0) == Interval(0.0, 0.0, 0.0)
    assert mcnemar(same, same) == 1.0
    assert detectable(same, same) == pytest.approx((1.959964 + 0.841621) / 200, rel=1e-5)


@pytest.mark.parametrize("bad", [[], [2.0], [float("nan")], [[[0.0]]], 1.0])
def test_outcomes_of_the_wrong_kind_are_refused(bad):
    with pytest.raises(ValueError, match="outcomes must be 0 to 1"):
        bootstrap_rate(bad, 0)


def test_arms_with_different_problems_are_refused():
    with pytest.raises(ValueError, match="the same problems, not 3 and 4"):
        paired_difference(np.zeros(3), np.zeros((2, 4)), 0)
