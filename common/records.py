"""Recorded runs: every figure that the project prints is read from one of these."""

import ast
import hashlib
import json
import os
from pathlib import Path
from typing import Any

ARTIFACTS = Path(__file__).parent.parent / "artifacts"


def fingerprint(path: Path) -> str:
    """sha256 of a file's syntax tree without docstrings: changes when the code does, not when a comment does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return hashlib.sha256(_canonical(tree).encode()).hexdigest()


def _canonical(node: Any) -> str:
    """A syntax tree as text that does not depend on the Python version."""
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    kept = {name: value for name, value in fields.items() if value not in (None, [])}
    return type(node).__name__ + "(" + ",".join(f"{name}={_canonical(value)}" for name, value in kept.items()) + ")"


def write_json(path: Path, value: Any) -> None:
    """Write aside and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, path)


def recorded_runs() -> dict[int, dict[str, Any]]:
    """Step number → its committed run.json, for the steps that have one."""
    return {
        int(file.parent.name[:2]): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(ARTIFACTS.glob("[0-9][0-9]_*/run.json"))
    }
