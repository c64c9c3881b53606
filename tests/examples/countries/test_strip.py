"""The drawn strip of the README."""

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from examples.countries.strip import HEIGHT, WIDTH, draw_strip, wrap
from examples.countries.world.countries import held_out_countries

REPLY = {
    "answer": "The region of Germany is Western Europe.",
    "sources": [{"title": name, "score": 0.9} for name in ("Germany", "Guyana", "Bosnia and Herzegovina")],
    "usage": {"prompt_tokens": 42, "memory_vectors": 24},
}


@pytest.fixture(scope="module")
def font() -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("needs the font DejaVu Sans")


def test_a_reply_becomes_a_small_image(font: ImageFont.FreeTypeFont, tmp_path: Path) -> None:
    (germany,) = (c for c in held_out_countries() if c.code == "DEU")
    draw_strip(germany, "What is the region of this country?", REPLY, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as image:
        assert image.size == (WIDTH, HEIGHT)
        assert len(image.convert("RGB").getcolors(10_000) or []) > 10
    assert (tmp_path / "strip.png").stat().st_size < 150_000


def test_lines_are_as_long_as_they_may_be(font: ImageFont.FreeTypeFont) -> None:
    text = "What is the region of this country?"
    lines = wrap(text, font, 120)
    assert " ".join(lines) == text
    assert len(lines) > 2
    assert all(font.getlength(line) <= 120 for line in lines)
    assert wrap("Unbreakable", font, 5) == ["Unbreakable"]
