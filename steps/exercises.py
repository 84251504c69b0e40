"""Write the heart of a step yourself, and let the project's own tests judge it.

python -m steps.exercises list              which functions there are to write
python -m steps.exercises write 5 mine      put step 05 into the folder mine, with their bodies removed
python -m steps.exercises check mine        run the step's tests with your file in the place of ours
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from steps import path
from steps.bugs import ROOT
from steps.planting import YOURS
from steps.story import read

TO_WRITE = {
    1: ("Model.forward", "Model.generate"),
    2: ("average_loop", "average_matmul", "average_softmax"),
    3: ("Attention.weights", "Attention.forward"),
    4: ("Head.weights", "Head.forward"),
    5: ("Head.weights", "Head.forward", "MultiHead.forward"),
    6: ("MLP.forward", "MultiHead.forward", "Block.forward"),
    7: ("KeyValues.append", "Attention.qkv", "Attention.forward"),
}
BODY = 'raise NotImplementedError("your turn")'

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command("list")
def list_exercises() -> None:
    """Which functions there are to write."""
    from common.terminal import make_console, table

    made = table("step", "idea", "functions to write")
    for number, names in TO_WRITE.items():
        made.add_row(f"{number:02d}", read(number).title, ", ".join(names))
    make_console().print(made)


@app.command()
def write(
    step: Annotated[int, typer.Argument(help="1 to 7", min=1, max=7)],
    folder: Annotated[Path, typer.Argument(help="where your file goes")],
    force: Annotated[bool, typer.Option("--force", help="overwrite the file that is there")] = False,
) -> None:
    """Write a step's file with the bodies of two or three functions removed."""
    file = folder / path(step).name
    if file.exists() and not force:
        raise typer.BadParameter(f"{file} exists already, and it is yours: choose another folder, or --force")
    if file.resolve().parent == path(step).parent:
        raise typer.BadParameter(f"{folder} holds the project's own steps: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(without_bodies(path(step).read_text(encoding="utf-8"), TO_WRITE[step]), encoding="utf-8")
    print(f"{file} is yours. Write {', '.join(TO_WRITE[step])}; then: python -m steps.exercises check {folder}")


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="where your files are")]) -> None:
    """Run the tests of every step in the folder, with your files in the place of ours. Exits with 1 if one fails."""
    from rich.markup import escape

    from common.terminal import heading, make_console
    from steps.verify import run_in_a_process

    mine = [number for number in TO_WRITE if (folder / path(number).name).is_file()]
    if not mine:
        raise typer.BadParameter(f"there is no step file in {folder}: python -m steps.exercises write 5 {folder}")
    if not (ROOT / "tests").is_dir():
        raise typer.BadParameter(f"there are no tests in {ROOT}: run this in a checkout of the project")
    console, failed = make_console(), 0
    for number in mine:
        heading(console, f"Step {number:02d} · {read(number).title}")
        try:
            compile((folder / path(number).name).read_text(encoding="utf-8"), path(number).name, "exec")
        except (SyntaxError, ValueError) as error:
            raise typer.BadParameter(f"{folder / path(number).name} is not Python yet: {error}") from error
        with console.status("running the tests"):
            outcomes = run_in_a_process(tests_of(number), {YOURS: str(folder.resolve())})
        claims = {claim(name): outcome for name, outcome in outcomes.items()}
        claims |= {claim(name): outcome for name, outcome in outcomes.items() if outcome.kind != "passed"}
        for sentence, outcome in claims.items():
            if outcome.kind == "passed":
                console.print(f"[green]✓[/] {sentence}")
            else:
                console.print(f"[red]✗ {sentence}[/]\n  [dim]{escape(outcome.message)}[/]")
        red = sum(outcome.kind != "passed" for outcome in claims.values()) if claims else 1
        console.print(f"\n{len(claims) - red} of {len(claims)} claims hold", style="bold red" if red else "bold green")
        failed += red
    raise typer.Exit(1 if failed else 0)


def without_bodies(source: str, names: Sequence[str]) -> str:
    """The source with the bodies of these functions replaced by one line; signatures and docstrings stay."""
    lines = source.splitlines()
    functions = {name: node for name, node in _functions(ast.parse(source)) if name in names}
    for name in sorted(names, key=lambda name: -functions[name].lineno):
        node = functions[name]
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        first, last = body[0], body[-1]
        assert last.end_lineno is not None
        lines[first.lineno - 1 : last.end_lineno] = [" " * first.col_offset + BODY]
    return "\n".join(lines) + "\n"


def tests_of(number: int) -> list[str]:
    """What to hand to pytest for one step: its own tests, and those that hold for every step."""
    files = [f"tests/steps/test_{path(number).stem}.py", "tests/steps/test_all_steps.py"]
    return [*files, "-k", f"test_{path(number).stem} or [{number}"]


def claim(name: str) -> str:
    """A test's name as a sentence: "future tokens cannot change past logits"."""
    return name.rpartition("::")[2].partition("[")[0].removeprefix("test_").replace("_", " ")


def _functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    """Every function of a module, and every method as Class.method."""
    here = [(node.name, node) for node in tree.body if isinstance(node, ast.FunctionDef)]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return here + [(f"{c.name}.{f.name}", f) for c in classes for f in c.body if isinstance(f, ast.FunctionDef)]


if __name__ == "__main__":
    app()
