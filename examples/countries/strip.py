"""Draws docs/strip.png: a question of the demo, the items that were retrieved for it, and the answer.

    make serve                              # in another terminal
    python -m examples.countries.strip --country DEU --fact region --out docs/strip.png

It asks the endpoint in mode memory; `--reply FILE` takes a JSON reply of /v1/answer in place of that. The images are
those of the demo: they follow from seeds. Needs the font DejaVu Sans (the package fonts-dejavu).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from comem_ray.client import URL, Client
from examples.countries.world.countries import Country, held_out_countries, load_countries
from examples.countries.world.knowledge import item_image
from examples.countries.world.questions import NAME_AND_FACTS, SEED, question_image, question_text

WIDTH, HEIGHT, SCALE = 1200, 340, 2  # pixels; drawn SCALE times larger, for smooth edges
TOP = 58  # of the images, below the headings
MARGIN, ARROW = 32, 62
QUESTION_IMAGE, SOURCE_IMAGE = (272, 204), (140, 105)
GAP = 14  # between sources
INK, GREY, LINE, ACCENT, SCORE = "#1f2328", "#6e7781", "#d0d7de", "#0969da", "#1a7f37"

Box = tuple[int, int, int, int]


class Canvas:
    """A white image of WIDTH x HEIGHT; all lengths are in its own pixels, before the scaling."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(self, x: int, y: int, text: str, size: int, colour: str = INK, bold: bool = False) -> None:
        """Text whose line begins at (x, y), its upper left corner."""
        self._draw.text((x * SCALE, y * SCALE), text, fill=colour, font=_font(size, bold))

    def wrapped(self, x: int, y: int, text: str, size: int, width: int, colour: str = INK, bold: bool = False) -> int:
        """Text in lines of at most `width`. Returns the y below the last line."""
        for line in wrap(text, _font(size, bold), width * SCALE):
            self.text(x, y, line, size, colour, bold)
            y += round(1.36 * size)
        return y

    def frame(self, box: Box) -> None:
        """A rounded frame."""
        corners = tuple(length * SCALE for length in box)
        self._draw.rounded_rectangle(corners, 8 * SCALE, outline=LINE, width=SCALE)

    def square(self, x: int, y: int, side: int) -> None:
        """A filled square: a memory vector."""
        corners = (x * SCALE, y * SCALE, (x + side) * SCALE, (y + side) * SCALE)
        self._draw.rounded_rectangle(corners, 2 * SCALE, fill=ACCENT)

    def image(self, x: int, y: int, image: Image.Image, size: tuple[int, int]) -> None:
        """An image with rounded corners, its upper left one at (x, y)."""
        large = (size[0] * SCALE, size[1] * SCALE)
        mask = Image.new("L", large, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, large[0] - 1, large[1] - 1), 6 * SCALE, fill=255)
        self._image.paste(image.resize(large, Image.Resampling.LANCZOS), (x * SCALE, y * SCALE), mask)

    def arrow(self, x: int, y: int, length: int) -> None:
        """An arrow to the right that begins at (x, y)."""
        end = (x + length) * SCALE
        self._draw.line((x * SCALE, y * SCALE, end - 4 * SCALE, y * SCALE), fill=GREY, width=2 * SCALE)
        head = [(end, y * SCALE), (end - 10 * SCALE, (y - 6) * SCALE), (end - 10 * SCALE, (y + 6) * SCALE)]
        self._draw.polygon(head, fill=GREY)

    def save(self, path: Path) -> None:
        """Writes the image as a PNG of 256 colours."""
        small = self._image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        small.quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size * SCALE)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The lines of `text`, each of at most `width` pixels in `font`; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_strip(country: Country, question: str, reply: dict[str, Any], path: Path) -> None:
    """Draws the question about `country`, the sources and the answer of `reply` (as /v1/answer gives it) to `path`.

    Raises KeyError where a source is not a country of the demo's English items.
    """
    canvas, sources, usage = Canvas(), reply["sources"], reply["usage"]
    middle, below = TOP + QUESTION_IMAGE[1] // 2, TOP + QUESTION_IMAGE[1] + 14
    canvas.text(MARGIN, 22, "Question", 17, GREY, bold=True)
    canvas.image(MARGIN, TOP, question_image(country, SEED), QUESTION_IMAGE)
    canvas.wrapped(MARGIN, below, question, 18, QUESTION_IMAGE[0], bold=True)
    x = MARGIN + QUESTION_IMAGE[0]
    canvas.arrow(x + 12, middle, ARROW - 24)
    x += ARROW
    vectors = usage["memory_vectors"] // len(sources)
    canvas.text(x, 22, "Retrieved from the knowledge base", 17, GREY, bold=True)
    canvas.text(x, below, f"{vectors} memory vectors per item", 15, GREY)
    x = _draw_sources(canvas, x, sources, vectors)
    canvas.arrow(x + 12, middle, ARROW - 24)
    x += ARROW
    canvas.text(x, 22, "Answer", 17, GREY, bold=True)
    canvas.wrapped(x, TOP + 40, reply["answer"].strip(), 23, WIDTH - MARGIN - x, ACCENT, bold=True)
    facts = f"{usage['memory_vectors']} vectors, {usage['prompt_tokens']} prompt tokens"
    canvas.wrapped(x, below, facts, 15, WIDTH - MARGIN - x, GREY)
    canvas.save(path)


def _draw_sources(canvas: Canvas, x: int, sources: Sequence[dict[str, Any]], vectors: int) -> int:
    """Draws a card per source from `x` on. Returns the x of the last one's right edge."""
    countries = {c.name: c for c in load_countries()}
    width, height = SOURCE_IMAGE[0] + 12, QUESTION_IMAGE[1]
    for source in sources:
        canvas.frame((x, TOP, x + width, TOP + height))
        canvas.image(x + 6, TOP + 6, item_image(countries[source["title"]]), SOURCE_IMAGE)
        y = canvas.wrapped(x + 10, TOP + SOURCE_IMAGE[1] + 14, source["title"], 15, SOURCE_IMAGE[0] - 6, bold=True)
        canvas.text(x + 10, y + 1, f"similarity {source['score']:.3f}", 14, SCORE)
        for n in range(vectors):
            canvas.square(x + 10 + 16 * n, TOP + height - 20, 11)
        x += width + GAP
    return x - GAP


def main() -> None:
    """Asks the endpoint, or reads a reply, and draws the strip."""
    parser = argparse.ArgumentParser(prog="python -m examples.countries.strip", description=__doc__)
    parser.add_argument("--country", default="DEU", help="ISO 3166 code of a held-out country")
    parser.add_argument("--fact", default="region", choices=NAME_AND_FACTS)
    parser.add_argument("--url", default=URL, help="address of the HTTP endpoint")
    parser.add_argument("--reply", type=Path, help="a JSON reply of /v1/answer, in place of asking")
    parser.add_argument("--out", type=Path, default=Path("docs/strip.png"))
    args = parser.parse_args()
    countries = {c.code: c for c in held_out_countries()}
    if args.country not in countries:
        parser.error(f"--country {args.country}: want one of {', '.join(countries)}")
    country, question = countries[args.country], question_text(args.fact)
    reply = json.loads(args.reply.read_text(encoding="utf-8")) if args.reply else _ask(args.url, country, question)
    draw_strip(country, question, reply, args.out)


def _ask(url: str, country: Country, question: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, f"{country.code}.png")
        question_image(country, SEED).save(image, format="PNG")
        answer = asdict(Client(url).answer(question, image))
    return {"answer": answer.pop("text"), **answer}


if __name__ == "__main__":
    main()
