"""The command line that every step shares, used as a learner would use it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import steps
from common import checkpoint
from steps import story
from steps.walkthrough import main

STEPS = range(1, 8)
TINY = ["--block-size", "16", "--batch-size", "4", "--steps", "4", "--sample", "20"]


@pytest.fixture(scope="session")
def small_text(tmp_path_factory) -> Path:
    """Twenty thousand characters of the manual that every Python carries."""
    from pydoc_data.topics import topics

    file = tmp_path_factory.mktemp("text") / "manual.txt"
    file.write_text("".join(topics[name] for name in sorted(topics))[:20_000], encoding="utf-8")
    return file


def run(capsys, number: int, *arguments: object) -> tuple[int, str, str]:
    """Run a step in this process. Returns exit code, what it printed, and its errors."""
    with pytest.raises(SystemExit) as stopped:
        main(number, [str(a) for a in arguments])
    said = capsys.readouterr()
    return stopped.value.code, said.out, " ".join(said.err.split())


@pytest.mark.parametrize("number", STEPS)
def test_a_walkthrough_tells_the_whole_story(number, small_text, tmp_path, capsys):
    code, out, _ = run(
        capsys, number, "--text", small_text, *TINY, "--out", tmp_path / "run", "--plot", tmp_path / "p.png"
    )
    assert code == 0
    told = story.read(number)
    parts = [
        told.title,
        "new",
        "shapes",
        "runs on",
        "One forward pass, traced",
        "Training",
        "What it writes",
        "Where this step stands",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)
    assert (("next" in out[places[-1] :]) and f"python -m steps.diff {number}" in out) or number == 7
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["steps"] == 4 and len(record["sample"]["text"]) == 21 and record["tokens_seen"] == 4 * 4 * 16
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("number", STEPS)
def test_the_checklist_passes_for_every_step(number, small_text, capsys):
    code, out, _ = run(capsys, number, "--text", small_text, "--check", "--preset", "quick")
    assert code == 0 and "all that apply pass" in out
    assert "✗" not in out and out.count("✓") >= 8


@pytest.mark.parametrize("number", STEPS)
def test_the_trace_lists_every_layer_and_stops(number, small_text, capsys):
    code, out, _ = run(capsys, number, "--text", small_text, "--trace")
    assert code == 0 and "Training" not in out
    if number >= 6:
        assert "h.2" in out and "1 × 64 × 128" in out


@pytest.mark.parametrize("number", STEPS)
def test_help_answers_without_loading_torch(number):
    command = [sys.executable, "-X", "importtime", "-m", f"steps.{story.read(number).name}", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    loaded = set(re.findall(r"\|\s+(\w+)$", ran.stderr, re.MULTILINE))
    assert ran.returncode == 0 and "--no-train" in ran.stdout and story.read(number).title in ran.stdout
    assert "typer" in loaded and not loaded & {"torch", "matplotlib", "numpy"}


def test_the_list_of_steps_answers_without_loading_torch():
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "steps"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "160"},
    )
    loaded = set(re.findall(r"\|\s+(\w+)$", ran.stderr, re.MULTILINE))
    assert ran.returncode == 0 and not loaded & {"torch", "matplotlib", "numpy"}
    assert all(story.read(number).title in ran.stdout for number in STEPS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "huge"], "there is no preset 'huge': choose quick, laptop, gpu"),
        (["--n-embd", "130", "--n-head", "4"], "n_embd=130 must be a multiple of n_head=4"),
        (["--prompt", "a☃b"], "'☃' (U+2603)"),
        (["--book", "hamlet"], "there is no book 'hamlet'"),
        (["--text", "no/such/file.txt"], "there is no file no/such/file.txt"),
        (["--device", "cuda:9"], "there is no device 'cuda:9': choose auto, cpu, cuda or mps"),
        (["--dtype", "int8"], "there is no dtype 'int8'"),
        (["--optimizer", "sgd"], "there is no optimizer 'sgd': choose adamw or muon"),
        (["--block-size", "100000"], "choose a longer text or a smaller --block-size"),
        (["--resume", "--out", "no/run/here"], "there is no checkpoint in no/run/here"),
        (["--steps", "0"], "--steps"),
        (["--temperature", "-1"], "--temperature"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, small_text, tmp_path, capsys):
    text = [] if "--book" in arguments or "--text" in arguments else ["--text", small_text]
    out = [] if "--out" in arguments else ["--out", tmp_path / "run"]
    code, _, err = run(capsys, 7, *text, *out, *arguments)
    assert code == 2
    assert sentence in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty"),
        (b"call me", "choose a longer text"),
        (b"x" * 5_000 + b"\xff" + b"y" * 5_000, "5,000"),
        (b"x" * 5_000 + b"\x00" + b"y" * 5_000, "binary"),
    ],
)
def test_a_text_that_cannot_be_used_says_why(content, sentence, tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    code, _, err = run(capsys, 1, "--text", file, "--out", tmp_path / "run")
    assert code == 2 and sentence in err.replace("5000", "5,000") and "Traceback" not in err


def test_a_text_of_one_character_and_no_line_end_still_trains(tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("a" * 5_000)
    code, out, _ = run(capsys, 7, "--text", file, *TINY, "--out", tmp_path / "run")
    assert code == 0 and "0.0000 nats" in out


def test_an_option_of_a_later_step_is_refused(small_text, tmp_path, capsys):
    code, _, err = run(capsys, 2, "--text", small_text, "--n-head", "4", "--out", tmp_path / "run")
    assert code == 2 and "this step has no n_head: leave --n-head out" in err


def test_resuming_refuses_another_text_and_another_step(small_text, tmp_path, capsys):
    out = ["--out", tmp_path / "run"]
    assert run(capsys, 7, "--text", small_text, *TINY, *out)[0] == 0
    other = tmp_path / "other.txt"
    other.write_text(small_text.read_text(encoding="utf-8").replace("e", "i"), encoding="utf-8")
    code, _, err = run(capsys, 7, "--text", other, "--resume", *out)
    assert code == 2 and "was trained on another text" in err
    code, _, err = run(capsys, 6, "--text", small_text, "--resume", *out)
    assert code == 2 and "holds a run of 07_full_gpt" in err


def test_a_new_run_moves_an_old_one_aside(small_text, tmp_path, capsys):
    for _ in range(3):
        code, out, _ = run(capsys, 1, "--text", small_text, *TINY, "--out", tmp_path / "run")
        assert code == 0
    assert "moved to run.2" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.1", "run.2"]


def test_a_loss_that_diverges_stops_with_a_sentence(small_text, tmp_path, capsys):
    wild = ["--learning-rate", "1e30", "--optimizer", "adamw", "--steps", "50", "--out", tmp_path / "run"]
    code, _, err = run(capsys, 7, "--text", small_text, *TINY, *wild)
    assert code == 1 and "stopped before the update: try a lower learning rate" in err


def test_weights_travel_through_a_hugging_face_folder_and_write_the_same(small_text, tmp_path, capsys):
    folder = tmp_path / "hf"
    run(capsys, 7, "--text", small_text, *TINY, "--out", tmp_path / "run", "--export-hf", folder)
    text = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["sample"]["text"]
    code, out, _ = run(capsys, 7, "--from-hf", folder, "--sample", "20")
    assert code == 0 and "".join(text.split()) in re.sub(r"[│\s]", "", out)
    code, _, err = run(capsys, 5, "--from-hf", folder)
    assert code == 2 and "use them with step 07" in err
    code, _, err = run(capsys, 7, "--from-hf", tmp_path / "nowhere")
    assert code == 2 and "no such file or directory; check the path" in err


def test_the_same_command_gives_the_same_text(small_text, tmp_path, capsys):
    texts = []
    for name in ("a", "b"):
        run(capsys, 5, "--text", small_text, *TINY, "--out", tmp_path / name)
        texts.append(json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))["sample"]["text"])
    assert texts[0] == texts[1]


def test_plain_output_without_a_terminal_has_no_escape_codes(small_text, tmp_path, capsys):
    _, out, _ = run(capsys, 2, "--text", small_text, *TINY, "--out", tmp_path / "run")
    assert "\x1b" not in out and re.search(r"training 4/4 · loss \d", out)


KILLED = """
import sys
from common import experiment
experiment.SAVE_EVERY_SECONDS = 0.0
sys.argv = ["x"]
from steps.walkthrough import main
main(7, ["--text", sys.stdin.readline().strip(), *OPTIONS])
"""


@pytest.mark.slow
def test_kill_9_at_any_step_and_resume_gives_the_same_run(tmp_path, small_text):
    sizes = ["--block-size", "16", "--n-embd", "16", "--n-layer", "2", "--n-head", "2", "--batch-size", "4"]
    options = [*sizes, "--steps", "60", "--sample", "0", "--optimizer", "adamw"]

    def start(out: Path, *more: str) -> subprocess.Popen:
        script = KILLED.replace("OPTIONS", repr([*options, "--out", str(out), *more]))
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        process.stdin.write(f"{small_text}\n")
        process.stdin.flush()
        return process

    whole = start(tmp_path / "whole")
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    cut, kills, more = tmp_path / "cut", 0, []
    for target in (3, 20, 45):
        process = start(cut, *more)
        deadline = time.monotonic() + 60
        while not any(int(p.name[11:]) >= target for p in cut.glob("checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        more = ["--resume"]
    last = start(cut, "--resume")
    last.communicate(timeout=120)
    assert last.returncode == 0 and kills == 3
    read = [checkpoint.newest(tmp_path / name)[0] for name in ("whole", "cut")]
    assert [r.step for r in read] == [60, 60]
    for name in (checkpoint.WEIGHTS, checkpoint.OPTIMIZERS):
        assert (read[0].folder / name).read_bytes() == (read[1].folder / name).read_bytes()
    curves = [r.about["progress"]["curve"] for r in read]
    assert curves[0] == curves[1]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_saves_says_how_to_go_on_and_exits_130(small_text, tmp_path):
    command = [sys.executable, "-m", "steps.01_bigram", "--text", str(small_text), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*command, "--steps", "20000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    while "training" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out and "--resume" in out
    stopped = int(re.search(r"stopped at step ([\d,]+)", out)[1].replace(",", ""))
    saved, _ = checkpoint.newest(tmp_path / "run")
    assert saved.step == stopped
    again = subprocess.run(
        [*command, "--resume", "--steps", str(stopped + 50)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert again.returncode == 0 and f"going on from step {stopped:,}" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "tolerance"), [("adamw", 2e-5), ("muon", 1e-3)])  # Muon rounds to bfloat16
def test_two_processes_train_like_one_on_the_same_global_batch(optimizer, tolerance, small_text, tmp_path):
    sizes = [
        "--block-size",
        "16",
        "--n-embd",
        "32",
        "--n-layer",
        "2",
        "--batch-size",
        "8",
        "--steps",
        "20",
        "--sample",
        "20",
    ]
    options = ["-m", "steps.07_full_gpt", "--text", str(small_text), "--optimizer", optimizer, *sizes]
    launch = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }
    records = {}
    for name, command in launch.items():
        out = tmp_path / name
        ran = subprocess.run(
            [*command, *options, "--out", str(out)], capture_output=True, text=True, timeout=180, env=environment()
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        assert ran.stdout.count("What it writes") == 1  # one process speaks
        records[name] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    one, two = records["one"], records["two"]
    assert len(one["curve"]) == 20
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=tolerance)
        assert a["val_loss"] == pytest.approx(b["val_loss"], abs=tolerance)
    assert one["val_loss"] == pytest.approx(two["val_loss"], abs=tolerance)


def test_the_numbers_of_the_steps_are_known_in_one_place():
    assert [n for n in steps.numbers() if n <= 7] == list(STEPS)
    with pytest.raises(ValueError, match="there is no step 99"):
        steps.path(99)


@pytest.mark.parametrize("number", STEPS)
def test_every_step_tells_its_idea_what_is_new_and_its_shapes(number):
    told = story.read(number)
    assert told.title and len(told.idea) > 200 and told.new and told.shapes
    assert steps.path(number).read_text(encoding="utf-8").startswith(f'"""Step {number:02d} · ')


@pytest.mark.parametrize("number", range(2, 8))
def test_a_step_adds_little_model_code_to_the_one_before(number):
    from steps.diff import added_lines

    limit = 60 if number == 7 else 35  # 07 takes GPT-2's whole shape at once
    assert 0 < added_lines(story.read(number - 1), story.read(number)) <= limit
