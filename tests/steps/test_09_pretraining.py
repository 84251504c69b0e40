"""Step 09: arms that differ in their data alone, and a command line that tells or runs the study."""

import pytest
from typer import Exit

from common.records import ARTIFACTS
from steps import load
from steps.case_study import PLANS, main, make_model

ARMS = {arm.name: arm for arm in load(9).ARMS}


def run(capsys, number: int, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises((SystemExit, Exit)) as stopped:
        main(number, arguments)
    said = capsys.readouterr()
    return stopped.value.code, said.out, said.err


def test_every_arm_begins_with_random_weights_and_has_its_rival_or_control():
    assert not any(arm.start or arm.tuned for arm in ARMS.values())
    assert ARMS["A3"].data == ARMS["A"].data and ARMS["A3"].longer == 3
    assert {arm.longer for name, arm in ARMS.items() if name != "A3"} == {1}
    assert {"B", "Br", "C", "C-"} < ARMS.keys()
    assert len({arm.data for arm in ARMS.values()}) == 5


@pytest.mark.parametrize("preset", ["quick", "laptop"])
def test_the_model_is_step_07s_in_the_plans_size(preset):
    plan = PLANS[preset]
    model = make_model(plan.vocab_size, plan)
    assert type(model) is load(7).Model
    assert (model.config.n_layer, model.config.n_embd, model.config.block_size) == (4, 128, 256)


@pytest.mark.parametrize("number", [9, 10])
def test_an_unknown_preset_is_refused_in_one_sentence(number, capsys):
    code, _, err = run(capsys, number, "--preset", "huge")
    assert code == 2 and "there is no preset 'huge': choose quick, laptop, a100" in err


@pytest.mark.parametrize("number", [9, 10])
def test_the_large_preset_is_only_computed(number, capsys):
    code, out, _ = run(capsys, number, "--preset", "a100")
    assert code == 0 and "it has not been run" in out and "of 40 GB" in out


@pytest.mark.parametrize("number", [9, 10])
def test_without_a_preset_the_recorded_study_is_told(number, capsys):
    code, out, err = run(capsys, number)
    recorded = next(ARTIFACTS.glob(f"{number:02d}_*/run.json"), None)
    if recorded is None:
        assert code == 2 and "is recorded: pass --preset quick" in err
    else:
        assert code == 0 and "What this does not show" in out and "Problems solved" in out
