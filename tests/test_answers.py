"""Images that a question may hold, and the stream of an answer."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from support.tiny import image, png

from comem_ray.answers import Answer, AnswerStream, Usage, image_bytes_of

ANSWER = Answer("ab", "none", [], Usage(1, 0, 2))


def test_a_path_and_bytes_are_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    assert image_bytes_of(path) == image_bytes_of(str(path)) == image_bytes_of(png(1)) == png(1)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "F", "HSV"])
def test_a_pil_image_keeps_its_pixels(mode: str) -> None:
    original = image(1).convert(mode)
    decoded = Image.open(io.BytesIO(image_bytes_of(original)))
    assert decoded.format == "PNG"
    assert decoded.convert("RGB").tobytes() == original.convert("RGB").tobytes()


def test_a_photograph_that_lies_on_its_side_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image(1, 60, 44).save(out, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(image_bytes_of(Image.open(out)))).size == (44, 60)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the image .*none\.png: No such file"):
        image_bytes_of(tmp_path / "none.png")
    with pytest.raises(ValueError, match="must be a path, bytes or a PIL image, not int"):
        image_bytes_of(3)  # type: ignore[arg-type]


def test_a_stream_has_its_answer_in_the_end() -> None:
    stream = AnswerStream(["a", "b", ANSWER])
    assert next(stream) == "a"
    with pytest.raises(RuntimeError, match="take all pieces"):
        _ = stream.answer
    assert list(stream) == ["b"]
    assert stream.answer is ANSWER
