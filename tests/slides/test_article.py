"""The article is one story in ten steps, every listing and figure of it has a source, and Medium can take it."""

import ast
import json
import re
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from common.records import ARTIFACTS
from slides import build, equations, sources, symptoms
from slides.sources import ROOT, Record
from steps import numbers
from steps.bugs import catalog
from steps.story import read

TEMPLATE, ARTICLE = ROOT / "article" / "article.md.j2", ROOT / "article" / "article.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"^!\[(.*?)\]\((.*?)\)$", re.MULTILINE)
STUDY = ("09_pretraining", "10_finetuning")


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", FENCE.sub("", text), re.MULTILINE)


def section(text: str, number: int) -> str:
    return re.search(rf"^## {number:02d} · .*?(?=^## )", text, re.DOTALL | re.MULTILINE)[0]


def prose_words(text: str) -> int:
    """Words that are read as prose: no listings, no pictures and their captions, no headings."""
    for other in (FENCE, PICTURE, re.compile(r"^\*Figure .*\*$|^#+ .*$", re.MULTILINE)):
        text = other.sub("", text)
    return len(text.split())


# ---------------------------------------------------------------- a study that never ran, to read the last sections


def rate(value: float, problems: int = 200) -> dict:
    return {"passed": value * problems, "problems": problems, "rate": value, "low": value - 0.05, "high": value + 0.05}


def study(difference: float, width: float = 0.04) -> dict[str, Record]:
    """Records in the form of the study's, in which every hypothesis came out with this difference."""
    from steps import load
    from textbooks.report import hypotheses, verdict

    strata = (*equations.STRATA, "all")
    scores = {name: rate(0.3, 1050 if name == "all" else 200) for name in strata}
    low, high = difference - width, difference + width
    figures = {"characters": 900_000, "tokens_seen": 1_300_000, "epochs": 4.2, "scores": scores}
    arms = {step: {arm.name: {"title": arm.title, **figures} for arm in load(step).ARMS} for step in (9, 10)}
    said = {"difference": difference, "low": low, "high": high, "detectable": 0.06, "p": 0.01, "p_holm": 0.03}
    said |= {"by_seed": [difference - 0.01, difference + 0.01]}
    claims = [{"name": name, **claim, **said, "verdict": verdict(said)} for name, claim in hypotheses().items()]
    head = {"seeds": [1, 2], "parameters": 1_080_000, "config": {"block_size": 256}, "wall_seconds": 3000.0}
    head |= {"near_floor": False, "seed_spread": {"arm": "C+X", "lowest": 0.28, "highest": 0.32}}
    measured = {"scores": {"all": rate(0.2)}, "humaneval": rate(0.05, 164)}
    real = dict.fromkeys(("before", "after", "permuted"), measured) | {"parameters": 135e6, "parameters_trained": 1.2e6}
    pairs = ("finetuned, examination", "paired, examination", "finetuned, humaneval")
    real["compared"] = {pair: {"value": difference, "low": low, "high": high, "p": 0.01} for pair in pairs}
    ten = {"against_exercises_alone": {"C+X": {"value": difference, "low": low, "high": high}}}
    ten |= {"hypotheses": claims, "pretrained": arms[9], "baseline_copying": {"scores": scores}, "real_model": real}
    made = {STUDY[0]: {**head, "arms": arms[9]}, STUDY[1]: {**head, "arms": arms[10], **ten}}
    text = {name: json.dumps(run) for name, run in made.items()}
    return {name: json.loads(run, object_hook=lambda pairs: Record("made.json", pairs)) for name, run in text.items()}


@pytest.fixture
def written_with(monkeypatch):
    """The article as it would be with another study's records."""

    def written(records: dict[str, Record]) -> str:
        true_run, true_picture = sources.run, sources.picture
        monkeypatch.setitem(sources.FUNCTIONS, "run", lambda name: records.get(name) or true_run(name))
        monkeypatch.setitem(
            sources.FUNCTIONS,
            "picture",
            lambda name, alt: f"![{alt}](../artifacts/{name})" if name.startswith("10_") else true_picture(name, alt),
        )
        return build.render(TEMPLATE)

    return written


@pytest.fixture(scope="module")
def text() -> str:
    return ARTICLE.read_text(encoding="utf-8")


# ---------------------------------------------------------------- one story in ten steps


def test_the_committed_article_is_what_the_builder_makes(text):
    assert text == build.render(TEMPLATE, skipped=[]), "run: python -m slides.build article"


def test_ten_sections_in_order_between_an_opening_and_a_closing(text):
    found = headings(text)
    assert [title[:5] for title in found[1:-1]] == [f"{number:02d} · " for number in range(1, 11)]
    assert not any(title[0].isdigit() for title in (found[0], found[-1]))
    assert re.findall(r"^# .*$", FENCE.sub("", text), re.MULTILINE) == [text.splitlines()[0]]


@pytest.mark.parametrize("number", range(1, 11))
def test_a_section_is_called_as_its_step(text, number):
    assert number in numbers()
    assert f"{number:02d} · {read(number).title}" in headings(text)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_section_shows_code_of_its_own_step_and_how_it_fails(text, number):
    step = read(number).file
    listings = [code for kind, code in FENCE.findall(section(text, number)) if kind == "python"]
    assert any(is_from(code, step) for code in listings)
    assert section(text, number).count("**How it fails quietly.**") == 1


def test_every_arm_of_the_study_is_introduced(text):
    from steps import load

    assert all(f"**{arm.name.replace('-', '−')}**" in section(text, 9) for arm in load(9).ARMS)


def test_it_is_as_long_as_an_article(text, written_with):
    assert 4000 <= prose_words(text) <= 6000
    for difference in (0.2, 0.0, -0.2):
        assert 4000 <= prose_words(written_with(study(difference))) <= 6000


# ---------------------------------------------------------------- every listing and every figure has a source


def without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def is_from(code: str, file: Path) -> bool:
    """Whether a listing is one definition of a file, whole and word for word but for docstrings."""
    source = file.read_text(encoding="utf-8")
    wanted = without_docstrings(ast.parse(code).body[0])
    same = any(
        without_docstrings(node) == wanted
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    )
    return same and {line.strip() for line in code.splitlines()} <= {line.strip() for line in source.splitlines()}


def strings(value: object) -> list[str]:
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_every_listing_stands_in_a_source_file_and_every_text_in_a_record(text):
    files = [file for folder in ("steps", "common", "textbooks") for file in (ROOT / folder).rglob("*.py")]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in ARTIFACTS.rglob("run.json")]
    known = [string for record in records for string in strings(record)]
    fences = FENCE.findall(text)
    assert len(fences) > 15 and text.count("```") == 2 * len(fences)
    for kind, code in fences:
        if kind == "python":
            assert code == dedent(code) and len(ast.parse(code).body) == 1
            assert any(is_from(code, file) for file in files), code
        else:
            assert kind == "text" and any(code in string for string in known), code


FACTS = [  # what may stand in the template with a digit: no result of a run is among them
    r"arXiv \d{4}\.\d{5}",
    r"\b2017\b",  # when Attention Is All You Need appeared
    r"equation 1\b",  # of that paper
    r"1\.3 billion parameters, phi-1",  # arXiv 2306.11644
    r"135 million parameters",  # the card of SmolLM2-135M
    r"17 % of the text stays, the paper's own share",  # arXiv 2306.11644, section 2.1, and our setting
    r"\b164 small programming problems\b",  # HumanEval, arXiv 2107.03374
    r"; 0 stands for random weights",  # the name of an arm
    r"standard deviation 0\.02\b",  # GPT-2's initialisation
    r"−1e-9|−1e9",  # the mistake itself
    r"`[^`]*\*\* -0\.5`|`is_causal=x\.size\(1\) > 1`|`sys\.exit\(0\)`|`q @ k\.transpose\(-2, -1\)`",
    r"`self\.ln_1\(x\) \+ self\.attn\(self\.ln_1\(x\)\)`|`python -m steps\.\d\d_\w+( --bug list)?`",
    r"\b95 %",  # the level of every interval
    r"\bGPT-[234](\.5)?\b|\bphi-1\b|\bSmolLM2\b|\bA3\b|\bmuon\b",  # names
    r"\b0[1-9]\b|\b10\b(?= ·|;| (put|to))|\bstep \d\d\b",  # the steps
]


def what_is_printed(template: str) -> str:
    """The template's own words: text between the tags, and in them every string that is not a name."""
    template = re.sub(r"{#.*?#}", "", template, flags=re.DOTALL)
    said = []
    for tag in re.findall(r"{{.*?}}|{%.*?%}", template, re.DOTALL):
        quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', tag)
        said += [string for string in quoted if not re.fullmatch(r"[\w./+<-]*[A-Za-z][\w./+<-]*|\\n+|\d", string)]
    return re.sub(r"{{.*?}}|{%.*?%}", "", template, flags=re.DOTALL) + "\n".join(said)


def typed(template: str) -> list[str]:
    """The numbers that somebody typed into a template, facts apart."""
    printed = what_is_printed(template)
    for fact in FACTS:
        printed = re.sub(fact, "", printed)
    literal = re.findall(r"{{\s*[-\d.,\s|n()]*}}|{{\s*\"\s*[\d.,%\s]+\"\s*}}", template)
    return literal + re.findall(r".{0,24}\d.{0,24}", printed)


def test_no_result_is_typed_in_the_template():
    template = TEMPLATE.read_text(encoding="utf-8")
    assert typed(template) == []
    for wrong in (
        "ends at 1.526 nats",
        "{{ 1.526 | n(3) }}",
        '{{ "1.526" }}',
        '{{ code("x", "a loss of 2.1") }}',
        "81 %",
    ):
        assert typed(template + wrong), wrong


# ---------------------------------------------------------------- what the prose says of the records is true


def losses(name: str) -> tuple[float, float]:
    """Validation loss of the healthy model and of the one with the mistake."""
    record = sources.run("symptoms")
    return record.healthy[str(record.mistakes[name].step)].val_loss, record.mistakes[name].val_loss


def found_by(name: str) -> set[str]:
    return {check.name for check in sources.run("symptoms").mistakes[name].failed_checks}


def test_the_symptoms_were_recorded_with_this_code():
    record = sources.run("symptoms")
    assert record.fingerprints == symptoms.fingerprints(), "run: python -m slides.symptoms"
    assert list(record.mistakes) == list(symptoms.MISTAKES)
    assert all(it.mistake == catalog()[name].mistake for name, it in record.mistakes.items())


def test_the_opening_is_true_a_broken_model_has_the_better_number():
    healthy, broken = losses("03_attention.mask-off-by-one")
    record = sources.run("symptoms")
    assert broken < healthy / 2
    assert record.mistakes["03_attention.mask-off-by-one"].parameters == record.healthy["3"].parameters


@pytest.mark.parametrize(
    "name", ["03_attention.mask-too-weak", "05_multihead.scaled-by-channels", "06_block.layernorm-over-time"]
)
def test_mistakes_that_are_said_to_be_silent_hardly_move_the_loss(name):
    healthy, broken = losses(name)
    assert abs(healthy - broken) < 0.01 and found_by(name)


def test_a_cache_that_is_wrong_leaves_the_loss_as_it_was_to_the_last_bit():
    for name in ("07_full_gpt.causal-with-cache", "07_full_gpt.cache-position-off-by-one"):
        healthy, broken = losses(name)
        assert healthy == broken and found_by(name) == {"cached decoding equals uncached"}


def test_the_other_claims_about_losses_and_checks_hold():
    higher = ("01_bigram.softmax-before-cross-entropy", "04_single_head.value-is-key", "06_block.dropout-left-on")
    for name in (*higher, "05_multihead.heads-in-a-plain-list"):
        assert losses(name)[1] > losses(name)[0]
    for name in ("02_averaging.masked-with-zero", "06_block.residual-from-the-copy"):
        assert losses(name)[1] < losses(name)[0]
    assert "gradients reach every parameter" not in found_by("05_multihead.heads-in-a-plain-list")
    assert "gradients reach every parameter" in found_by("04_single_head.value-is-key")
    leaks = ("02_averaging.masked-with-zero", "03_attention.mask-too-weak", "06_block.layernorm-over-time")
    assert all("the future cannot leak into the past" in found_by(name) for name in leaks)


def test_one_line_end_is_what_it_is_said_to_be():
    published, stripped = (sources.run("newline").ways[way] for way in ("published", "stripped"))
    assert published.problems == stripped.problems == 164
    assert published.passed == 0 < stripped.passed == stripped.outcomes.count("1")
    assert set(published.answers) == {"", "```"}
    assert all(answer.startswith("\n    ") for answer in stripped.answers)


@pytest.mark.parametrize(
    ("difference", "said", "unsaid"),
    [
        (0.2, "Higher by 20.0 points (95 % interval 16.0 to 24.0)", "No difference that these problems could show"),
        (0.0, "No difference that these problems could show (0.0 points, 95 % interval −4.0 to 4.0", "Higher by"),
        (-0.2, "Lower by 20.0 points (95 % interval −24.0 to −16.0)", "No difference that these problems could show"),
    ],
)
def test_the_outcome_is_told_as_it_was_recorded(written_with, difference, said, unsaid):
    written = section(written_with(study(difference)), 10)
    assert written.count(said) == 6 and unsaid not in written
    kept = {0.2: "Of the claims, 9 hold", 0.0: "Of the claims, none holds", -0.2: "Of the claims, none holds"}
    assert kept[difference] in written
    change = {0.2: "up by 20.0 points (95", 0.0: "no difference that so few problems", -0.2: "down by 20.0 points (95"}
    assert written.count(change[difference]) == 3
    assert ("So the textbooks gave more than their form." in written) == (difference > 0)
    assert ("So nothing here shows that the textbooks gave more" in written) == (difference == 0)
    assert ("So the exchanged pages prepared better." in written) == (difference < 0)


def test_a_study_that_ended_near_the_floor_says_so_before_it_compares(written_with):
    records = study(0.0)
    assert "no arm solves more than" not in section(written_with(records), 10)
    records[STUDY[1]]["near_floor"] = True
    written = section(written_with(records), 10)
    assert 0 < written.index("no arm solves more than 30.0 %") < written.index("Of the claims")


# ---------------------------------------------------------------- Medium can take it


def assert_medium_takes(text: str) -> None:
    prose = FENCE.sub("", text)
    for forbidden in (r"\$\$", r"\|\s*:?-{3,}", r"<\w", r"\.svg", r"data:", r"\\\(", r"^#{3,} ", r"\[\^", r"{{|{%"):
        assert not re.search(forbidden, prose, re.MULTILINE), forbidden
    assert "<table" not in text and "\n\n\n" not in text


def assert_pictures_are_numbered_captioned_and_described(text: str, made: bool = True) -> None:
    lines = text.splitlines()
    places = [i for i, line in enumerate(lines) if line.startswith("![")]
    assert len(places) == text.count("![") == len(PICTURE.findall(text)) > 10
    for number, place in enumerate(places, 1):
        alt, link = PICTURE.fullmatch(lines[place]).groups()
        assert len(alt.split()) >= 8, f"{link}: say what is to be seen"
        assert lines[place + 1] == "" and re.fullmatch(rf"\*Figure {number}\. .+\.\*", lines[place + 2]), link
        assert link.endswith(".png")
        if made or (ARTICLE.parent / link).exists():
            head = (ARTICLE.parent / link).read_bytes()[:24]
            assert head[:8] == b"\x89PNG\r\n\x1a\n"
            assert int.from_bytes(head[16:20], "big") >= 1100, f"{link}: too narrow for Medium's column"


def test_medium_takes_it_and_every_picture_is_there(text):
    assert_medium_takes(text)
    assert_pictures_are_numbered_captioned_and_described(text)


@pytest.mark.parametrize("difference", [0.2, 0.0, -0.2])
def test_medium_takes_it_whatever_comes_of_the_study(written_with, difference):
    written = written_with(study(difference))
    assert_medium_takes(written)
    assert_pictures_are_numbered_captioned_and_described(written, made=False)


def test_every_relative_link_leads_somewhere(text):
    for page in (text, (ARTICLE.parent / "PASTING.md").read_text(encoding="utf-8")):
        for link in re.findall(r"\]\((?!https?://)(.*?)\)", page):
            assert (ARTICLE.parent / link.split("#")[0]).exists(), link


def test_the_committed_pictures_are_what_is_drawn_from_the_records(text, tmp_path):
    from matplotlib.image import imread

    equations.draw(tmp_path, skip_missing=True)
    committed = {file.name for file in equations.PICTURES.iterdir()}
    assert committed == {file.name for file in tmp_path.iterdir()}, "run: python -m slides.equations"
    assert committed == {Path(link).name for _, link in PICTURE.findall(text) if link.startswith("pictures/")}
    for name in committed:
        assert np.array_equal(imread(tmp_path / name), imread(equations.PICTURES / name)), f"{name}: draw it again"


def test_the_study_s_tables_are_drawn_whatever_came_of_it(monkeypatch, tmp_path):
    made, true_run = study(-0.1), sources.run
    monkeypatch.setattr(equations, "run", lambda name: made.get(name) or true_run(name))
    assert equations.draw(tmp_path) == []
    header, rows = equations.hypotheses()
    assert len(header) == 4 and {row[-1] for row in rows} == {"the reverse"}
    assert rows[0][2] == "−10.0 (−14.0 to −6.0)"
    assert [row[0] for row in equations.arms()[1]] == ["A", "A3", "B", "Br", "C", "C−"]
