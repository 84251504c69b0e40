"""The notebooks say what the steps say, carry everything they import, and run where the project is not installed."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from urllib.parse import urlsplit

import nbformat
import pytest

from slides import notebooks
from slides.notebooks import TEMPLATES, closure
from slides.sources import ROOT, SourceError, snippet, story
from steps import numbers
from steps.bugs import catalog

NAMES = tuple(TEMPLATES)


@pytest.fixture(scope="module")
def made():
    return notebooks.build()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def source_of(cell):
    """A cell's code without the line that folds it."""
    return re.sub(r"\A#@title [^\n]*\n", "", cell.source)


def written_files(notebook):
    """Path → text of every file that the helper cells write."""
    found = {}
    for cell in code_cells(notebook):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILES":
                found |= ast.literal_eval(node.value)
    return found


# ---------------------------------------------------------------- what they hold


@pytest.mark.parametrize("number", numbers())
def test_each_step_has_exactly_one_section(made, number):
    told = story(number)
    headings = [line for notebook in made.values() for line in prose(notebook).splitlines()]
    assert headings.count(f"## {number:02d} · {told.title}") == 1
    assert sum(line.startswith(f"## {number:02d}") for line in headings) == 1


@pytest.mark.parametrize("number", numbers())
def test_a_section_says_what_the_step_says_of_itself(made, number):
    told = story(number)
    cells = [c.source for notebook in made.values() for c in notebook.cells if c.cell_type == "markdown"]
    (section,) = [cell for cell in cells if f"## {number:02d} · " in cell]
    assert told.idea in section and told.new in section


@pytest.mark.parametrize("number", [number for number in numbers() if number <= 7])
def test_a_section_shows_every_definition_of_its_step_in_order(made, number):
    file = story(number).file.relative_to(ROOT).as_posix()
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    defined = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    marks = [cell.metadata.get("source") for cell in code_cells(made["task_a_nanogpt"])]
    assert [mark["name"] for mark in marks if mark and mark["file"] == file] == [*defined, "RECIPE"]


@pytest.mark.parametrize("name", NAMES)
def test_every_marked_cell_is_its_source(made, name):
    marked = [cell for cell in code_cells(made[name]) if "source" in cell.metadata]
    assert len(marked) > 10
    for cell in marked:
        mark = cell.metadata["source"]
        assert source_of(cell) == snippet(mark["file"].removesuffix(".py").removeprefix("steps/"), mark["name"]), mark


@pytest.mark.parametrize("name", NAMES)
def test_helper_files_are_the_projects_own(made, name):
    files = written_files(made[name])
    assert len(files) > 15
    for path, text in files.items():
        assert text == (ROOT / path).read_text(encoding="utf-8"), path


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_notebook_imports_of_the_project_it_brings_along(made, name):
    files = written_files(made[name])
    cells = [source_of(cell) for cell in code_cells(made[name])]
    wanted = set()
    for text in [*cells, *(text for path, text in files.items() if path.endswith(".py"))]:
        for node in ast.walk(ast.parse(text)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            wanted |= {module for module in modules if module.split(".")[0] in notebooks.PACKAGES}
    assert wanted
    needed = {path.relative_to(ROOT).as_posix() for module in wanted for path in closure(module)}
    assert needed <= files.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_heading_begins_its_cell(made, name):
    for cell in made[name].cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\n#+ ", cell.source)


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_cell_is_folded_in_colab_and_in_jupyter(made, name):
    folded = [cell for cell in code_cells(made[name]) if cell.source.startswith("#@title ")]
    assert len(folded) > 4
    for cell in folded:
        assert cell.source.split("\n")[0].endswith('{ display-mode: "form" }')
        assert cell.metadata["cellView"] == "form" and cell.metadata["jupyter"] == {"source_hidden": True}
    assert all("cellView" not in cell.metadata for cell in code_cells(made[name]) if cell not in folded)


def test_what_a_step_shares_with_the_one_before_is_folded_and_what_is_new_is_not(made):
    cells = {(c.metadata["source"]["file"], c.metadata["source"]["name"]): c for c in code_cells(made["task_a_nanogpt"])
             if "source" in c.metadata}  # fmt: skip
    assert cells["steps/05_multihead.py", "Head"].source.startswith("#@title Head, as in section 04")
    assert "cellView" not in cells["steps/05_multihead.py", "MultiHead"].metadata


# ---------------------------------------------------------------- the files


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_notebook_is_what_its_sources_make(made, name):
    committed = (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
    assert committed == (nbformat.writes(made[name]) + "\n").encode(), "out of date: python -m slides.build notebooks"


def test_building_again_gives_the_same_bytes(made):
    again = notebooks.build()
    assert {n: nbformat.writes(nb) for n, nb in again.items()} == {n: nbformat.writes(nb) for n, nb in made.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_and_holds_no_output(made, name):
    nbformat.validate(made[name])
    ids = [cell["id"] for cell in made[name].cells]
    assert len(set(ids)) == len(ids)
    for cell in code_cells(made[name]):
        assert cell.outputs == [] and cell.execution_count is None
        ast.parse(cell.source)  # plain Python: nothing that only Jupyter understands


# ---------------------------------------------------------------- what must not be in them


@pytest.mark.parametrize("name", NAMES)
def test_no_figure_is_typed_in_the_prose(made, name):
    text = prose(made[name])
    taken = [part for t in map(story, numbers()) for part in (f"{t.number:02d} · {t.title}", t.idea, t.new, t.shapes)]
    taken += [part for bug in catalog().values() for part in (bug.mistake, bug.symptom)]
    for part in filter(None, taken):
        text = text.replace(part, "")
    known = r"arXiv 2306\.11644|et al\., 2023|Ctrl\+F9|Linux 6\.7|GPT-2|section 0\d|^`\w+`: .* → .*$"
    assert not re.findall(r"[^\n]*\d[^\n]*", re.sub(known, "", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_no_recorded_loss_appears_in_a_notebook(made, name):
    text = "".join(cell.source for cell in made[name].cells if "cellView" not in cell.metadata)
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "artifacts").glob("0[1-7]_*/run.json")]
    assert len(runs) == 7
    for run in runs:
        assert f"{run['val_loss']:.3f}" not in text


@pytest.mark.parametrize("name", NAMES)
def test_every_web_address_is_a_book_of_the_catalog(made, name):
    books = tomllib.loads((ROOT / "book_data" / "catalog.toml").read_text(encoding="utf-8"))
    allowed = {source["url"] for book in books.values() for source in book["sources"] if "url" in source}
    found = set(re.findall(r"https?://[^\s\"'`)]+", nbformat.writes(made[name]).replace("\\", " ")))
    assert found <= allowed
    assert name != "task_a_nanogpt" or {urlsplit(url).hostname for url in found} >= {"www.gutenberg.org"}


# ---------------------------------------------------------------- the builder


def test_a_name_that_no_one_defined_is_one_sentence(tmp_path):
    template = tmp_path / "x.md.j2"
    template.write_text("fine\n{{ nothing }}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"x\.md\.j2.*'nothing' is undefined"):
        notebooks.render(template)


def test_a_fence_that_says_something_unknown_is_refused():
    with pytest.raises(SourceError, match="A fence cannot say"):
        notebooks.notebook("task_x", "```python hide\n1\n```\n")


def test_code_that_holds_fences_stays_one_cell():
    inner = 'text = """\n```python\n1\n```\n"""'
    (cell,) = notebooks.notebook("task_x", notebooks._fence(inner)).cells
    assert cell.source == inner


def test_a_planted_mistake_must_be_in_the_method_that_is_named():
    assert "masked_fill" not in notebooks.planted("03_attention.no-mask", "Attention.weights")
    with pytest.raises(SourceError, match=r"not in Attention\.forward"):
        notebooks.planted("03_attention.no-mask", "Attention.forward")


# ---------------------------------------------------------------- run, where nothing of the project is installed

EXECUTE = """
import sys, nbclient, nbformat
try:
    import common
except ImportError:
    notebook = nbformat.read(sys.argv[1], as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": sys.argv[2]}}).execute()
    nbformat.write(notebook, sys.argv[3])
else:
    sys.exit("the project can be imported here, so the test would prove nothing")
"""


def run_in_an_empty_folder(name, tmp_path):
    """The executed notebook. A virtual environment sees the installed packages by a path, which leaves out what is
    installed in place, as this project is; no book can be fetched, and `quick` is chosen."""
    venv, folder, out = tmp_path / "venv", tmp_path / "empty", tmp_path / "out.ipynb"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (ROOT.__class__(where) / "packages.pth").write_text("\n".join(sorted(paths)) + "\n", encoding="utf-8")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "npm_config_registry"), "http://127.0.0.1:9")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ran = subprocess.run(
        [python, "-c", EXECUTE, ROOT / "notebooks" / f"{name}.ipynb", folder, out],
        cwd=folder, env={**environment, **nowhere, "NOTEBOOK_PRESET": "quick"}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return nbformat.read(out, as_version=4), folder


def printed(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream"), [
        output for output in outputs if "image/png" in output.get("data", {})
    ]


@pytest.mark.notebooks
def test_task_a_runs_in_an_empty_folder(tmp_path):
    notebook, folder = run_in_an_empty_folder("task_a_nanogpt", tmp_path)
    text, pictures = printed(notebook)
    assert "going on with Python reference" in text  # the one line about the book that could not be fetched
    losses = [float(loss) for loss in re.findall(r"validation loss (\d\.\d{3}) nats", text)]
    assert len(losses) == 7 and all(1 < loss < 3.2 for loss in losses)  # learned something; far below a uniform guess
    assert min(losses) < losses[0]
    assert len(re.findall(r"^✗ ", text, re.MULTILINE)) == 6  # every planted mistake is found, and nothing else
    assert "no check finds it" not in text
    assert len(pictures) >= 7 + 5
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {f"{number:02d}" for number in range(1, 8)}
    assert "its logits are those of the model in memory" in text


@pytest.mark.notebooks
def test_task_b_runs_in_an_empty_folder(tmp_path):
    notebook, folder = run_in_an_empty_folder("task_b_textbooks", tmp_path)
    text, pictures = printed(notebook)
    assert "isolation level here: " in text
    assert re.search(r"timed out: It used more than", text)  # a program that never ends was ended
    assert re.search(r"[1-9]\d* of \d+ pages got another's code", text)
    assert "all of their own solutions pass" in text
    assert re.search(r"C\+X minus C-\+X: [+-]\d\.\d{3}, 95 % interval", text)
    assert re.search(r"pass@1 after LoRA: \d\.\d{3}, 95 % interval", text)
    assert len(pictures) == 5
    kept = {path.name for path in (folder / "textbooks_run").iterdir()}
    assert {"C", "C-", "C+X", "C-+X", "lora.safetensors"} <= kept
