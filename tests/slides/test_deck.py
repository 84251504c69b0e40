"""The deck says what the steps and their records say, and fits its slides and its ten minutes."""

import ast
import html
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from jinja2 import Environment, nodes
from PIL import Image

from common.records import recorded_runs
from slides import build, pictures, pptx
from slides.build import ARTICLE, What, outputs
from slides.deck import DECK, slides
from slides.map import NOTHING, table
from slides.sources import COLUMNS, LINES, PICTURES, Missing, SourceError, snippet, story

FOLDER = DECK.parent
TEMPLATE = (FOLDER / "deck.md.j2").read_text(encoding="utf-8")
RECORDED = sorted(recorded_runs())
NAMES = r"GPT-[24]|phi-1"  # names that hold a digit


def plain(markdown: str) -> str:
    return re.sub(r"[*`]", "", markdown)


# The text


def test_the_committed_deck_is_what_its_sources_say():
    skipped = []
    (text,) = outputs(What.deck, skipped).values()
    assert text == DECK.read_text(encoding="utf-8"), "run: python -m slides.build deck"
    left_out = {int(re.match(r"step_(\d\d) ", reason)[1]) for reason in skipped}
    assert left_out.isdisjoint(RECORDED)


def test_every_recorded_step_has_one_group_of_one_or_two_slides_in_order():
    steps = [slide.step for slide in slides()]
    assert steps[0] is None and steps[-1] is None
    inner = steps[1:-1]
    assert inner == sorted(inner) and sorted(set(inner)) == RECORDED
    assert all(inner.count(step) in (1, 2) for step in RECORDED)


@pytest.mark.parametrize("step", RECORDED)
def test_a_step_shows_its_idea_a_picture_its_code_its_shapes_and_what_came_of_it(step):
    group = [slide for slide in slides() if slide.step == step]
    assert all(plain(slide.title) == f"{step:02d} {story(step).title}" for slide in group)
    assert sum(bool(slide.lead) for slide in group) == 1
    assert any(slide.pictures for slide in group)
    (code,) = [slide for slide in group if slide.code]
    assert re.match(r"\*\*flows\*\* .*(→|\(\w, \w\))", code.points[0])
    assert re.search(r"\d.* → \*[\d.,]+( %)?\*$|\d+\.\d %$", code.points[-1])


@pytest.mark.parametrize("step", range(1, 8))
def test_the_loss_before_and_after_is_the_recorded_one(step):
    runs = recorded_runs()
    before = runs[step - 1]["val_loss"] if step > 1 else math.log(len(runs[1]["alphabet"]))
    (code,) = [slide for slide in slides() if slide.step == step and slide.code]
    assert code.points[-1] == f"**loss** {before:.3f} → *{runs[step]['val_loss']:.3f}*"


def test_no_figure_is_typed_in_the_template():
    text = re.sub(r"\A---\n.*?\n---\n", "", TEMPLATE, flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", text, flags=re.DOTALL)
    text = re.sub(rf"<!-- \[\d:\d\d\]|{NAMES}", "", text)
    assert re.findall(r".*\d.*", text) == []


def test_no_figure_is_typed_in_an_expression_of_the_template():
    """A number may stand there only as an argument, in a comparison, or as a place in a list."""

    def typed(node: nodes.Node, allowed: bool = False) -> list[tuple[int, float]]:
        if isinstance(node, nodes.Const):
            return [] if allowed or type(node.value) not in (int, float) else [(node.lineno, node.value)]
        found = typed(node.node) if isinstance(node, nodes.Filter | nodes.Call | nodes.Getitem) else []
        inside = isinstance(node, nodes.Filter | nodes.Call | nodes.Getitem | nodes.Operand)
        for child in node.iter_child_nodes(exclude=("node",) if found or inside else ()):
            found += typed(child, allowed or inside)
        return found

    assert typed(Environment().parse(TEMPLATE)) == []


def test_no_code_is_typed_in_the_template():
    fences = re.findall(r"```.*?```", TEMPLATE, flags=re.DOTALL)
    assert fences and all(re.fullmatch(r"```python \{\{.*\}\}\n\{\{ text \}\}\n```", fence) for fence in fences)


@pytest.mark.parametrize("slide", [slide for slide in slides() if slide.code], ids=lambda slide: plain(slide.title))
def test_code_on_a_slide_is_its_source(slide):
    step, *names = slide.source
    source = "\n".join(snippet(step, name, doc=False) for name in names)
    assert ast.dump(ast.parse(slide.code)) == ast.dump(ast.parse(source))
    rows = slide.code.splitlines()
    assert len(rows) <= LINES and max(map(len, rows)) <= COLUMNS


@pytest.mark.parametrize("number", RECORDED)
def test_a_step_has_its_slides_its_section_its_cell_and_its_tests(number):
    (row,) = [row for row in table().splitlines() if f"`{story(number).name}`" in row]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 5 and NOTHING not in cells
    links = re.findall(r"\]\(([^)#]+)", row)
    assert len(links) == 5 and all((FOLDER.parent / link).is_file() for link in links)


def test_the_table_leads_to_the_article_s_own_headings():
    anchors = re.findall(r"article\.md#([^)]+)", table())
    headings = re.findall(r"^## (.*)$", ARTICLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    made = [re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert anchors and set(anchors) <= set(made) and len(set(made)) == len(made)


# The talk


def test_the_talk_takes_at_most_ten_minutes():
    assert sum(slide.seconds for slide in slides()) <= 600


@pytest.mark.parametrize("slide", slides(), ids=lambda slide: plain(slide.title))
def test_the_notes_can_be_spoken_in_their_time(slide):
    words = len(re.findall(r"\w+", slide.notes))
    assert 5 <= words <= slide.seconds * 190 / 60  # a lively pace, in words a minute


def test_a_slide_without_a_time_is_refused():
    with pytest.raises(SourceError, match=r"'Two' has no note with a time"):
        slides("<!-- _class: idea -->\n\n## One\n\n<!-- [0:20] said -->\n\n---\n\n## Two\n\n<!-- said -->\n")


# The pictures


def test_every_picture_exists_and_says_what_is_to_be_seen():
    shown = [each for slide in slides() for each in slide.pictures]
    assert shown and all(file.is_file() and len(alt) > 20 for file, alt in shown)
    assert not any(re.search(r"\bbg\b|\d(px|%)|h:", alt) for _, alt in shown)


@pytest.mark.parametrize("name", pictures.DRAWN)
def test_a_picture_is_what_its_code_and_records_draw(name, tmp_path):
    try:
        pictures.DRAWN[name]().save(tmp_path / "again.png")
    except Missing:
        assert not (PICTURES / f"{name}.png").exists()
        return
    files = (tmp_path / "again.png", PICTURES / f"{name}.png")
    drawn, kept = (np.asarray(Image.open(file).convert("L"), int) for file in files)
    assert drawn.shape == kept.shape
    assert (abs(drawn - kept) > 60).sum() < 30, f"run: python -m slides.pictures {name}"


# PPTX and PDF


@pytest.fixture(scope="module", params=["committed", "made now"])
def presentation(request, tmp_path_factory):
    from pptx import Presentation

    file = FOLDER / "deck.pptx"
    if request.param == "made now":
        file = tmp_path_factory.mktemp("made") / "deck.pptx"
        pptx.write(file)
    return Presentation(file)


def texts(page) -> list[str]:
    return [shape.text_frame.text for shape in page.shapes if shape.has_text_frame]


def test_the_pptx_holds_titles_code_points_and_notes_as_text(presentation):
    deck, pages = slides(), list(presentation.slides)
    assert len(pages) == len(deck)
    for slide, page in zip(deck, pages, strict=True):
        assert page.shapes.title.text_frame.text == plain(slide.title)
        said = page.notes_slide.notes_text_frame.text
        assert said == f"[{slide.seconds // 60}:{slide.seconds % 60:02d}] {slide.notes}"
        shown = "\n".join(texts(page))
        assert plain(slide.lead) in shown and all(plain(point) in shown for point in slide.points)
        if slide.code:
            assert slide.code in [text.replace("\v", "\n") for text in texts(page)]


def test_code_in_the_pptx_is_coloured_and_in_a_typeface_of_one_width(presentation):
    for slide, page in zip(slides(), presentation.slides, strict=True):
        if not slide.code:
            continue
        (shape,) = [shape for shape in page.shapes if shape.has_text_frame and shape.text_frame.text == slide.code]
        runs = [run for paragraph in shape.text_frame.paragraphs for run in paragraph.runs]
        assert {run.font.name for run in runs} == {pptx.MONO}
        assert len({str(run.font.color.rgb) for run in runs}) >= 3


def test_pictures_in_the_pptx_lie_on_the_slide_and_carry_their_text(presentation):
    for slide, page in zip(slides(), presentation.slides, strict=True):
        shown = [shape for shape in page.shapes if shape.shape_type == 13]
        assert [shape._element.nvPicPr.cNvPr.get("descr") for shape in shown] == [alt for _, alt in slide.pictures]
        assert [shape.image.blob for shape in shown] == [file.read_bytes() for file, _ in slide.pictures]
        for shape in page.shapes:
            assert shape.left >= 0 and shape.left + shape.width <= presentation.slide_width
            assert shape.top >= 0 and shape.top + shape.height <= presentation.slide_height


def test_the_pdf_has_a_page_a_slide_with_its_title_and_figures():
    from pypdf import PdfReader

    def words(text: str) -> str:
        return re.sub(r"\W", "", text)

    pages = PdfReader(FOLDER / "deck.pdf").pages
    assert len(pages) == len(slides())
    for slide, page in zip(slides(), pages, strict=True):
        shown = words(page.extract_text())
        assert words(plain(slide.title)) in shown
        assert all(words(plain(point)) in shown for point in slide.points[-1:])


def test_what_is_committed_is_small():
    assert all((FOLDER / name).stat().st_size < 4 << 20 for name in ("deck.pdf", "deck.pptx", "deck.md"))


def test_a_missing_tool_is_named_in_one_sentence_and_the_pptx_is_made_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "DECK", tmp_path / "deck.md")
    with pytest.raises(SourceError, match=r"^Marp is missing .* install Node\.js and npm, then run `make docs`\.$"):
        build.draw_deck()
    assert (tmp_path / "deck.pptx").stat().st_size > 100_000
    (tmp_path / "node_modules" / ".bin").mkdir(parents=True)
    (tmp_path / "node_modules" / ".bin" / "marp").touch()
    monkeypatch.delenv("CHROME_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"^A browser is missing .* install Chromium, or set CHROME_PATH to one\.$"):
        build.draw_deck()


MEASURE = """<script>addEventListener("load", () => document.fonts.ready.then(() => {
  const layers = ":not([data-marpit-advanced-background=background]):not([data-marpit-advanced-background=pseudo])"
  const found = [...document.querySelectorAll("section" + layers)].map(section => {
    const page = section.getBoundingClientRect(), boxes = [...section.children].map(e => e.getBoundingClientRect())
    const inside = boxes.every(b => b.top >= page.top && b.bottom <= page.bottom && b.right <= page.right)
    const apart = boxes.every((b, i) => i === 0 || b.top >= boxes[i - 1].bottom - 1)
    const wide = [...section.querySelectorAll("*")].some(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
    const fonts = ["400 24px 'Source Code Pro'", "400 30px 'Source Sans 3'"].every(f => document.fonts.check(f))
    const high = section.scrollHeight > section.clientHeight, text = section.innerText.slice(0, 40)
    return {text, inside, apart, wide, high, fonts}
  })
  document.body.innerHTML = "<pre id=found></pre>"
  document.getElementById("found").textContent = JSON.stringify(found)
}))</script></body>"""


@pytest.mark.slow
def test_no_slide_overflows(tmp_path):
    marp, browser = FOLDER / "node_modules" / ".bin" / "marp", shutil.which("chromium") or shutil.which("google-chrome")
    if not marp.exists() or not browser:
        pytest.skip("needs Marp and Chromium: make docs")
    bare = FOLDER / ".bare.html"
    try:
        made = [marp, "deck.md", "--theme", "theme.css", "--template", "bare", "--no-stdin", "-o", bare]
        subprocess.run(made, cwd=FOLDER, check=True, capture_output=True, timeout=120)
        bare.write_text(bare.read_text(encoding="utf-8").replace("</body>", MEASURE), encoding="utf-8")
        look = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
        look += ["--virtual-time-budget=20000", f"--user-data-dir={tmp_path}", bare.as_uri()]
        page = subprocess.run(look, capture_output=True, text=True, timeout=120).stdout
    finally:
        bare.unlink(missing_ok=True)
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', page, flags=re.DOTALL)[1]))
    assert len(found) == len(slides())
    assert [each for each in found if each["high"] or each["wide"] or not (each["inside"] and each["apart"])] == []
    assert all(each["fonts"] for each in found)
