"""`python -m steps.diff 4 5`: what one step adds to the one before, in colour."""

import ast
import difflib
from typing import Annotated

import typer
from rich.text import Text

from common.terminal import heading, make_console
from steps import numbers
from steps.story import Story, read

app = typer.Typer(add_completion=False)


def model_code(story: Story) -> list[str]:
    """The lines of a step that are the model: no docstrings, comments or blank lines, no recipe and no main."""
    tree = ast.parse(story.file.read_text(encoding="utf-8"))
    kept = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    lines: list[str] = []
    for node in kept:
        for inner in ast.walk(node):
            if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner) is not None:
                inner.body = inner.body[1:]
        lines += ast.unparse(node).splitlines()
    return [line for line in lines if line.strip()]


def added_lines(before: Story, after: Story) -> int:
    """How many lines of model code `after` has that `before` has not."""
    return sum(line.startswith("+ ") for line in difflib.ndiff(model_code(before), model_code(after)))


def source(story: Story) -> list[str]:
    """The step's file from its first import to its recipe."""
    text = story.file.read_text(encoding="utf-8")
    body = text.split('"""', 2)[2]
    return body.split("\nRECIPE", 1)[0].strip().splitlines()


@app.command()
def main(
    before: Annotated[int, typer.Argument(help="the earlier step, such as 4")],
    after: Annotated[int, typer.Argument(help="the later step, such as 5")],
    context: Annotated[int, typer.Option(help="unchanged lines to show around each change", min=0)] = 3,
) -> None:
    """Show what one step adds to another, in colour."""
    for number in (before, after):
        if number not in numbers():
            raise typer.BadParameter(f"there is no step {number}: choose from {', '.join(map(str, numbers()))}")
    old, new = read(before), read(after)
    console = make_console()
    heading(console, f"{old.name} → {new.name}")
    console.print(new.new + "\n", style="italic")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in list(difflib.unified_diff(source(old), source(new), n=context, lineterm=""))[2:]:
        console.print(Text("┄" * 40 if line.startswith("@") else line, style=styles.get(line[0], "dim")))
    console.print(f"\n{added_lines(old, new)} new lines of model code", style="bold")


if __name__ == "__main__":
    app()
