"""The deck as a PowerPoint file that can be edited: titles, code, points and notes are text, pictures are pictures.

Places and sizes are the theme's, in pixels of a slide of 1280 × 720. The typefaces are ones that PowerPoint, Google
Slides and LibreOffice all have, or have a match for.
"""

import re
from pathlib import Path
from typing import Any

from common.plotting import ACCENT, INK
from slides.deck import Slide, minutes, slides

SANS, MONO = "Arial", "Courier New"
FAINT, GREEN, WARM, SOFT, NIGHT, PAPER = "#66727e", "#2f7d4f", "#c05621", "#f3f7f9", "#12263a", "#ffffff"
WIDTH, HEIGHT, MARGIN = 1280, 720, 60
ROW = 27.5  # from one line of code to the next
RUN = re.compile(r"\*\*(?P<strong>.+?)\*\*|\*(?P<em>.+?)\*|`(?P<code>.+?)`|(?P<plain>[^*`]+)")


def write(path: Path, deck: list[Slide] | None = None) -> None:
    """Write the deck, the committed one if none is given, to a .pptx file."""
    from pptx import Presentation

    presentation = Presentation()
    presentation.slide_width, presentation.slide_height = _px(WIDTH), _px(HEIGHT)
    made = slides() if deck is None else deck
    presentation.core_properties.title = made[0].title
    presentation.core_properties.author = ""
    for number, slide in enumerate(made, 1):
        page = presentation.slides.add_slide(presentation.slide_layouts[5])  # a title and nothing else
        LAYOUTS[slide.kind](page, slide)
        page.notes_slide.notes_text_frame.text = f"[{minutes(slide.seconds)}] {slide.notes}"
        if slide.step:  # how far we are, along the lower edge
            _filled(page, (0, HEIGHT - 7, WIDTH * slide.step / 10, 7), ACCENT)
        if number > 1:
            _text(page, [str(number)], (WIDTH - 160, 676, 100, 30), 17, FAINT, right=True)
    presentation.save(str(path))


def _title_slide(page: Any, slide: Slide) -> None:
    page.background.fill.solid()
    page.background.fill.fore_color.rgb = _rgb(NIGHT)
    for file, alt in slide.pictures:
        _picture(page, file, alt, (717, 78, 563, 563))
    _title(page, slide.title, (70, 170, 640, 90), 62, PAPER)
    _text(page, [slide.lead], (70, 275, 600, 150), 31, "#c9dbe8")
    _text(page, slide.points, (70, 470, 620, 90), 24, "#8fb3c9")


def _idea_slide(page: Any, slide: Slide) -> None:
    _title(page, slide.title)
    _text(page, [slide.lead], (MARGIN, 98, 1160, 54), 36, FAINT)
    for file, alt in slide.pictures:
        _picture(page, file, alt, (MARGIN, 165, 1160, 500))


def _code_slide(page: Any, slide: Slide) -> None:
    _title(page, slide.title)
    _code(page, slide.code, (MARGIN, 104, 1160, 26 + ROW * (slide.code.count("\n") + 1)))
    *facts, last = slide.points
    _text(page, facts, (MARGIN, 584, 1160, 80), 23)
    _text(page, [last], (MARGIN, 628, 1160, 50), 34, right=True)


def _close_slide(page: Any, slide: Slide) -> None:
    _title(page, slide.title)
    for file, alt in slide.pictures:
        _picture(page, file, alt, (MARGIN, 110, 1160, 415))
    _text(page, [f"•  {point}" for point in slide.points], (MARGIN, 540, 1160, 140), 29)


LAYOUTS = {"title": _title_slide, "idea": _idea_slide, "code": _code_slide, "close": _close_slide}
Place = tuple[float, float, float, float]  # left, top, width, height


def _title(page: Any, text: str, place: Place = (MARGIN, 36, 1160, 64), size: float = 46, color: str = INK) -> None:
    shape = page.shapes.title
    shape.left, shape.top, shape.width, shape.height = map(_px, place)
    _fill(shape.text_frame, [text], size, color, bold=True)


def _text(
    page: Any, lines: tuple[str, ...] | list[str], place: Place, size: float, color: str = INK, right: bool = False
) -> None:
    _fill(page.shapes.add_textbox(*map(_px, place)).text_frame, lines, size, color, right=right)


def _fill(
    frame: Any, lines: tuple[str, ...] | list[str], size: float, color: str, right: bool = False, bold: bool = False
) -> None:
    """Markdown lines as paragraphs: *emphasis* in the accent's colour, **strong** as a faint label."""
    from pptx.enum.text import MSO_ANCHOR, PP_ALIGN

    frame.word_wrap = True
    frame.vertical_anchor = MSO_ANCHOR.TOP
    frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0
    for number, line in enumerate(lines):
        paragraph = frame.paragraphs[0] if number == 0 else frame.add_paragraph()
        paragraph.alignment = PP_ALIGN.RIGHT if right else PP_ALIGN.LEFT
        paragraph.line_spacing = _px(1.35 * size)
        for match in RUN.finditer(line):
            kind = match.lastgroup
            shade = {"strong": FAINT, "em": ACCENT}.get(kind, color)
            run = _run(paragraph, match[kind], size * (0.86 if kind == "code" else 1), shade)
            run.font.name = MONO if kind == "code" else SANS
            run.font.bold = (bold and kind == "plain") or (not bold and kind == "em")


def _run(paragraph: Any, text: str, size: float, color: str) -> Any:
    from pptx.util import Pt

    run = paragraph.add_run()
    run.text = text
    run.font.size, run.font.color.rgb = Pt(size * 0.75), _rgb(color)
    return run


def _code(page: Any, code: str, place: Place) -> None:
    """Code as one text box, a run for every token, coloured as in the theme."""
    from pptx.enum.text import MSO_ANCHOR, MSO_AUTO_SIZE, PP_ALIGN
    from pygments.lexers import PythonLexer
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    left, top, _, height = place
    colors = (
        (Comment, FAINT), (Keyword, ACCENT), (Operator.Word, ACCENT), (Name.Builtin.Pseudo, INK),
        (Name.Builtin, ACCENT), (String, GREEN), (Number, WARM),
    )  # fmt: skip
    shape = _filled(page, place, SOFT)
    _filled(page, (left, top, 7, height), ACCENT)
    frame = shape.text_frame
    frame.word_wrap, frame.auto_size, frame.vertical_anchor = True, MSO_AUTO_SIZE.NONE, MSO_ANCHOR.MIDDLE
    frame.margin_left, frame.margin_right = _px(30), 0
    frame.margin_top = frame.margin_bottom = 0
    paragraph = frame.paragraphs[0]
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(code):
        color = next((color for token, color in colors if kind in token), INK)
        for number, part in enumerate(text.split("\n")):
            if number:
                paragraph = frame.add_paragraph()
            if part:
                run = _run(paragraph, part, 23, color)
                run.font.name = MONO
                run.font.bold = kind in Keyword or kind in Name.Function or kind in Name.Class
    for paragraph in frame.paragraphs:
        paragraph.alignment, paragraph.line_spacing = PP_ALIGN.LEFT, _px(ROW)


def _filled(page: Any, place: Place, color: str) -> Any:
    """A rectangle of one colour, which can hold text."""
    box = page.shapes.add_textbox(*map(_px, place))
    box.fill.solid()
    box.fill.fore_color.rgb = _rgb(color)
    return box


def _picture(page: Any, file: Path, alt: str, place: Place) -> None:
    """A picture as large as the place allows, in its middle; `alt` is what a screen reader says."""
    left, top, width, height = place
    picture = page.shapes.add_picture(str(file), 0, 0)
    scale = min(width / picture.width, height / picture.height)
    wide, high = picture.width * scale, picture.height * scale
    picture.left, picture.top = _px(left + (width - wide) / 2), _px(top + (height - high) / 2)
    picture.width, picture.height = _px(wide), _px(high)
    picture._element.nvPicPr.cNvPr.set("descr", alt)


def _px(pixels: float) -> Any:
    """Pixels of a slide as PowerPoint counts lengths."""
    from pptx.util import Emu

    return Emu(round(pixels * 9525))


def _rgb(color: str) -> Any:
    from pptx.dml.color import RGBColor

    return RGBColor.from_string(color.removeprefix("#"))
