"""Pictures to read: one rendered with known text, and a photographed page of a book."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from examples.ocr.reader import Line

KNOWN_TEXT = """\
The quick brown fox jumps over the lazy dog
Pack my box with five dozen liquor jugs
Invoice 2026-0417: total due 1,284.50 EUR
tuili reads this line with native code
Waltz, bad nymph, for quick jigs vex
Order #98231 ships on Monday at 07:45
Sphinx of black quartz, judge my vow
How vexingly quick daft zebras jump!"""


def rendered_sample(text: str = KNOWN_TEXT, font_size: int = 32) -> Image.Image:
    """The text in Pillow's own font, dark on a light ground."""
    lines = text.splitlines()
    font = ImageFont.load_default(font_size)
    widest = max(font.getlength(line) for line in lines)
    pitch = font_size * 2
    picture = Image.new(
        "RGB", (int(widest) + 3 * font_size, pitch * len(lines) + font_size), "#f4f1ea"
    )
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        draw.text((font_size * 3 // 2, font_size + row * pitch), line, fill="#202028", font=font)
    return picture


def book_page() -> Image.Image:
    """The scanned page that scikit-image ships."""
    from skimage import data

    return Image.fromarray(data.page()).convert("RGB")


def annotated(picture: Image.Image, lines: Iterable[Line]) -> Image.Image:
    """The picture beside a copy that shows each line's box and what was read in it."""
    marked = picture.convert("RGB")
    notes = Image.new("RGB", picture.size, "white")
    for line in lines:
        corners = [tuple(corner) for corner in line.box]
        ImageDraw.Draw(marked).polygon(corners, outline="#d03030", width=2)
        height = max(10, int((line.box[3, 1] - line.box[0, 1]) * 0.6))
        font = ImageFont.load_default(height)
        ImageDraw.Draw(notes).text(corners[0], line.text, fill="#103080", font=font)
    both = Image.new("RGB", (picture.width * 2, picture.height), "white")
    both.paste(marked, (0, 0))
    both.paste(notes, (picture.width, 0))
    return both


def edit_distance(found: str, expected: str) -> int:
    """Characters to insert, delete or replace to turn one text into the other."""
    row = list(range(len(expected) + 1))
    for i, a in enumerate(found, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(expected, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def share_right(found: str, expected: str) -> float:
    """Share of the expected characters that were read right."""
    return 1 - edit_distance(found, expected) / len(expected)
