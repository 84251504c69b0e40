"""What a template takes from the project is what the project holds, and a wrong name is one clear sentence."""

import ast
import json
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from slides import build, sources
from slides.build import What, outputs, render, stale
from slides.sources import Missing, Record, SourceError, diff, find, fit, picture, run, screen, shapes, snippet, story
from steps import numbers, path


def named_code(step: str) -> list[str]:
    """Every class, function, method and assignment of a step."""
    found = []
    for node in ast.parse(sources.source_file(step).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            inner = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            found += [node.name, *(f"{node.name}.{name}" for name in inner)]
        elif isinstance(node, ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets]
    return found


CODE = [(path(number).stem, name) for number in numbers() for name in named_code(path(number).stem)]


def without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@pytest.mark.parametrize(("step", "name"), CODE)
def test_a_snippet_is_the_code_of_the_step(step, name):
    (made,) = ast.parse(snippet(step, name)).body
    assert ast.dump(made) == ast.dump(find(step, name))


@pytest.mark.parametrize(("step", "name"), CODE)
def test_leaving_out_docstrings_and_comments_leaves_the_code(step, name):
    text = snippet(step, name, doc=False, comments=False)
    (made,) = ast.parse(text).body
    assert ast.dump(made) == without_docstrings(find(step, name))
    assert "  # " not in text


def test_a_snippet_keeps_every_line_of_its_source():
    text = path(5).read_text(encoding="utf-8")
    assert snippet("05_multihead", "MultiHead") in text
    assert all(f"    {line}" in text for line in snippet("05_multihead", "Head.weights").splitlines())


def test_a_snippet_begins_with_its_decorator():
    assert snippet("01_bigram", "Model.generate").startswith("@torch.inference_mode()\ndef generate(")
    assert snippet("05_multihead", "Config").startswith("@dataclass(frozen=True)\nclass Config:")


@pytest.mark.parametrize(("step", "name"), [("03_attention", "Attention.weights"), ("textbooks/stand_ins", "Case")])
def test_fitting_changes_layout_only(step, name):
    text = fit(step, [name])
    assert without_docstrings(ast.parse(text)) == without_docstrings(ast.Module([find(step, name)], []))
    assert max(map(len, text.splitlines())) <= 76


def test_code_on_a_slide_has_no_docstring_and_no_comment():
    text = fit("07_full_gpt", ["MLP"])
    assert '"""' in snippet("07_full_gpt", "MLP") and '"""' not in text and "#" not in text


def test_what_is_too_long_for_a_slide_is_refused():
    with pytest.raises(SourceError, match="Model of 07_full_gpt is more than 76 columns × 16 lines"):
        fit("07_full_gpt", ["Model"])


@pytest.mark.parametrize("number", range(2, 8))
def test_a_diff_holds_every_new_line_in_order(number):
    before, after = sources._model_lines(number - 1), sources._model_lines(number)
    new, rest = diff(number - 1, number).splitlines(), iter(after)
    assert new and all(line in rest for line in new)  # looking on from where the last one was found
    assert Counter(after) - Counter(new) <= Counter(before)


def test_a_diff_holds_no_line_that_was_there_before():
    new = diff(4, 5).splitlines()
    assert "class MultiHead(nn.Module):" in new and "        self.attn = MultiHead(config)" in new
    assert not {"class Head(nn.Module):", "class Model(nn.Module):"} & set(new)


def test_shapes_are_read_from_annotations():
    assert shapes("01_bigram", "Model.forward") == "idx (B, T) → logits (B, T, V)"
    assert shapes("05_multihead", "MultiHead.forward") == "x (B, T, C) → (B, T, C)"
    assert shapes("03_attention", "Attention.weights") == "x (B, T, C) → q (B, T, D) → k (B, T, D) → scores (B, T, T)"
    assert shapes("07_full_gpt", "Attention.forward") == "x (B, T, C) → y (B, H, T, D) → (B, T, C)"


def test_figures_come_from_the_recorded_run():
    recorded = json.loads((sources.ARTIFACTS / "07_full_gpt" / "run.json").read_text(encoding="utf-8"))
    assert run("07_full_gpt").val_loss == run("07_full_gpt")["val_loss"] == recorded["val_loss"]
    assert run("07_full_gpt").curve[-1].step == recorded["steps"]
    assert run("08_textbook_synthesis/local").teacher.startswith("local")
    assert run("tests/report").passed > 0


@given(st.dictionaries(st.sampled_from(["items", "keys", "copy", "get", "C-", "0+X", "loss"]), st.integers()))
def test_every_key_is_an_attribute_even_one_that_is_a_method_of_dict(pairs):
    record = Record("a.json", pairs)
    assert all(getattr(record, key) == record[key] == value for key, value in pairs.items())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: snippet("05_multihead", "Multihead"), "choose one of Config, Head, MultiHead, Model, RECIPE"),
        (lambda: snippet("05_multihead", "Head.backward"), "choose one of __init__, weights, forward"),
        (lambda: shapes("05_multihead", "Head"), "not a function"),
        (lambda: run("07_full_gpt").loss, "artifacts/07_full_gpt/run.json has no 'loss' here: choose one of command,"),
        (lambda: picture("ladder.png", " "), "needs a text"),
        (lambda: screen("ladder.png", "The ladder"), "name an .svg"),
    ],
)
def test_a_wrong_name_is_one_sentence_that_says_what_to_do(wrong, says):
    with pytest.raises(SourceError, match=says) as error:
        wrong()
    assert not isinstance(error.value, Missing) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "missing",
    [
        lambda: run("12_nothing"),
        lambda: run("08_textbook_synthesis/nothing"),
        lambda: story(12),
        lambda: snippet("12_nothing", "Model"),
        lambda: picture("nothing.png", "Nothing"),
    ],
)
def test_what_does_not_exist_yet_is_missing(missing):
    with pytest.raises(Missing):
        missing()


def test_pictures_are_found_from_the_deck_and_from_the_article():
    for name in ("block.png", "ladder.png", "07_full_gpt/run.png"):
        place = picture(name, "A picture").partition("](")[2].removesuffix(")")
        assert all((sources.ROOT / folder / place).is_file() for folder in ("slides", "article"))


def test_reading_sources_loads_no_torch():
    code = "import slides.build, slides.deck, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# The builder

BLOCKS = """\
{% block one %}
one {{ 7 | n(1) }}
{% endblock %}
{% block two %}
{{ run("12_nothing").val_loss }}
{% endblock %}
three
"""


def template(folder, text):
    file = folder / "made.md.j2"
    file.write_text(text, encoding="utf-8")
    return file


def test_what_is_missing_stops_the_build_unless_it_may_be_skipped(tmp_path):
    file = template(tmp_path, BLOCKS)
    with pytest.raises(Missing, match=r"artifacts/12_nothing/run.json does not exist: record that run first"):
        render(file)
    skipped = []
    assert render(file, skipped) == "one 7.0\nthree\n"
    assert len(skipped) == 1 and skipped[0].startswith("two is left out: ")


def test_skipping_what_is_missing_skips_no_mistake(tmp_path):
    with pytest.raises(SourceError, match="has no 'nothing'"):
        render(template(tmp_path, '{% block one %}{{ run("07_full_gpt").nothing }}{% endblock %}'), [])


@pytest.mark.parametrize(
    ("text", "says"), [("{{ nothing }}", "'nothing' is undefined"), ("\n{% if %}", r"made\.md\.j2:2: ")]
)
def test_an_undefined_name_and_a_syntax_error_stop_the_build(tmp_path, text, says):
    with pytest.raises(SourceError, match=says):
        render(template(tmp_path, text))


def test_a_text_that_was_changed_by_hand_is_stale(tmp_path):
    file = tmp_path / "deck.md"
    assert stale({file: "made\n"}) == [file]
    file.write_text("made\n", encoding="utf-8")
    assert stale({file: "made\n"}) == []
    file.write_text("made by hand\n", encoding="utf-8")
    assert stale({file: "made\n"}) == [file]


def test_the_check_changes_nothing_and_fails_when_a_text_is_out_of_date(tmp_path, monkeypatch):
    file = tmp_path / "deck.md"
    file.write_text("old\n", encoding="utf-8")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "outputs", lambda what, skipped: {file: "new\n"})
    result = CliRunner().invoke(build.app, ["deck", "--check"])
    assert result.exit_code == 2 and "Out of date: deck.md" in result.output
    assert file.read_text(encoding="utf-8") == "old\n"
    file.write_text("new\n", encoding="utf-8")
    assert CliRunner().invoke(build.app, ["deck", "--check"]).exit_code == 0


def test_the_check_never_skips():
    result = CliRunner().invoke(build.app, ["deck", "--check", "--skip-missing"])
    assert result.exit_code == 2 and "leave out --skip-missing" in result.output


def test_the_same_sources_give_the_same_text():
    assert outputs(What.deck, []) == outputs(What.deck, [])
