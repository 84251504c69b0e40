"""Rules of the whole suite: shape annotations are enforced, inputs are drawn, and a run can be recorded.

Profiles (HYPOTHESIS_PROFILE): `dev` draws 25 examples a property, `ci` (the default) the same 50 on every machine,
`nightly` 2000 new ones; `bugs` draws 25 and, when one fails, looks for no smaller one. `pytest --report FILE` writes
what was run, and how long it took, as JSON.
"""

import functools
import importlib
import os
import time
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # the tower: an int is a float too
jaxtyping.install_import_hook(["steps", "common"], CHECKER)  # before anything imports them
importlib.import_module("steps")  # plants a bug if the environment asks for one: python -m steps.bugs
torch.set_num_threads(1)  # the tensors are tiny: a second thread is only something to wait for

calm = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "report_multiple_bugs": False}
settings.register_profile("dev", max_examples=25, **calm)
settings.register_profile("ci", max_examples=50, derandomize=True, **calm)
settings.register_profile("nightly", max_examples=2000, **calm)
settings.register_profile("bugs", max_examples=25, derandomize=True, phases=[Phase.generate], **calm)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)


def pytest_addoption(parser):
    parser.addoption("--report", metavar="FILE", type=Path, help="write the figures of this run to FILE, as JSON")


def pytest_configure(config):
    config.addinivalue_line("markers", "oracle: compares with an independent witness")
    config.addinivalue_line("markers", "gradient: compares a gradient with finite differences or one made by hand")
    file = config.getoption("--report")
    if file and not hasattr(config, "workerinput"):  # under xdist the reports of all workers arrive here
        config.pluginmanager.register(Recorder(file))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Count the examples that Hypothesis ran to the end; rejected ones do not count."""
    handle = getattr(getattr(item, "obj", None), "hypothesis", None)
    if handle is None:
        return (yield)
    test, examples = handle.inner_test, 0

    @functools.wraps(test)
    def counted(*args, **kwargs):
        nonlocal examples
        test(*args, **kwargs)
        examples += 1

    handle.inner_test = counted
    try:
        return (yield)
    finally:
        handle.inner_test = test
        item.user_properties.append(("examples", examples))


class Recorder:
    """Adds up what was run; parametrized tests count one each, as in pytest's own summary."""

    def __init__(self, file: Path):
        self.file, self.start = file, time.perf_counter()
        self.figures = dict.fromkeys(("passed", "failed", "properties", "examples", "oracles", "gradient_checks"), 0)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.figures["failed"] += 1
        elif report.passed and report.when == "call":
            examples = dict(report.user_properties).get("examples", 0)
            self.figures["passed"] += 1
            self.figures["properties"] += examples > 0
            self.figures["examples"] += examples
            self.figures["oracles"] += "oracle" in report.keywords
            self.figures["gradient_checks"] += "gradient" in report.keywords

    def pytest_sessionfinish(self, session):
        from common.records import write_json
        from common.runtime import machine

        seconds = round(time.perf_counter() - self.start, 1)
        workers = getattr(session.config.option, "numprocesses", None) or 1
        about = {"seconds": seconds, "workers": workers, "profile": PROFILE, "machine": machine()}
        write_json(self.file, self.figures | about)
