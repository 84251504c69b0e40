"""The exercises: bodies removed and nothing else, a learner's file never overwritten, and judged by the real tests."""

import ast
import shutil

import pytest
from typer.testing import CliRunner

from steps import exercises, path

app = exercises.app
STEPS = sorted(exercises.TO_WRITE)


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return done.exit_code, " ".join(done.output.replace("│", " ").split())


def functions(source: str) -> dict[str, ast.FunctionDef]:
    return dict(exercises._functions(ast.parse(source)))


@pytest.mark.parametrize("number", STEPS)
def test_signature_and_docstring_stay_and_the_body_is_one_line(number, tmp_path):
    assert run("write", number, tmp_path)[0] == 0
    ours = functions(path(number).read_text(encoding="utf-8"))
    yours = functions((tmp_path / path(number).name).read_text(encoding="utf-8"))
    assert ours.keys() == yours.keys() and 2 <= len(exercises.TO_WRITE[number]) <= 3
    for name, function in yours.items():
        if name not in exercises.TO_WRITE[number]:
            assert ast.dump(function) == ast.dump(ours[name])
            continue
        documented = ast.get_docstring(ours[name])
        assert ast.get_docstring(function) == documented
        assert [ast.unparse(line) for line in function.body[documented is not None :]] == [
            "raise NotImplementedError('your turn')"
        ]
        assert ast.dump(function.args) == ast.dump(ours[name].args)
        assert ast.dump(function.returns) == ast.dump(ours[name].returns)


@pytest.mark.parametrize("number", STEPS)
def test_all_outside_the_functions_is_left_as_it_is(number):
    source = path(number).read_text(encoding="utf-8")
    kept = set(exercises.without_bodies(source, exercises.TO_WRITE[number]).splitlines())
    assert kept - set(source.splitlines()) == {
        " " * indent + exercises.BODY for indent in ({4} if number == 2 else {8})
    }


def test_a_learners_file_is_never_overwritten_unless_forced(tmp_path):
    mine = tmp_path / path(3).name
    mine.write_text("my work", encoding="utf-8")
    code, said = run("write", 3, tmp_path)
    assert code == 2 and "it is yours" in said
    assert mine.read_text(encoding="utf-8") == "my work"
    assert run("write", 3, tmp_path, "--force")[0] == 0
    assert exercises.BODY in mine.read_text(encoding="utf-8")


def test_the_projects_own_steps_are_never_overwritten():
    before = path(1).read_text(encoding="utf-8")
    code, said = run("write", 1, path(1).parent, "--force")
    assert code == 2 and "choose another folder" in said
    assert path(1).read_text(encoding="utf-8") == before


def test_the_list_names_every_function():
    code, said = run("list")
    assert code == 0
    assert all(name in said for names in exercises.TO_WRITE.values() for name in names)


@pytest.mark.slow
def test_the_projects_tests_judge_what_is_written_and_what_is_not(tmp_path):
    """Step 01 as we wrote it passes; step 03 with one mistake in it fails by the claim that it breaks."""
    shutil.copy(path(1), tmp_path)
    leaky = path(3).read_text(encoding="utf-8").replace("~self.tril[:T, :T]", "~self.tril[:T, :T].roll(1, 1)")
    (tmp_path / path(3).name).write_text(leaky, encoding="utf-8")
    code, said = run("check", tmp_path)
    assert code == 1
    first, _, third = said.partition("Step 03")
    assert "✗" not in first and "claims hold" in first
    assert "✗ future tokens cannot change past logits" in third
    assert "✓ loop matrix product" not in third  # step 02 is not in the folder


@pytest.mark.slow
def test_an_unwritten_function_is_your_turn(tmp_path):
    run("write", 2, tmp_path)
    code, said = run("check", tmp_path)
    assert code == 1 and "NotImplementedError: your turn" in said


def test_a_folder_without_steps_and_a_file_that_is_not_python_are_sentences(tmp_path):
    code, said = run("check", tmp_path)
    assert code == 2 and "there is no step file in" in said
    (tmp_path / path(2).name).write_text("def (", encoding="utf-8")
    code, said = run("check", tmp_path)
    assert code == 2 and "is not Python yet" in said
