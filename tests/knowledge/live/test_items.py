"""Live items: an ingest of the line that stands for one gives the same item, and what ingest rejects is refused."""

from __future__ import annotations

import io
import json
import random

import pytest
from PIL import Image
from support.ingesting import encoded
from support.live_items import LIMITS, upload
from support.tiny import image, png

from comem_ray.config import ImageConfig
from comem_ray.knowledge.images import ImageError, normalize_image
from comem_ray.knowledge.live.export import item_line
from comem_ray.knowledge.live.items import ItemRefused, Upload, make_item
from comem_ray.knowledge.sources import jsonl
from comem_ray.knowledge.sources.rows import Row, RowFault, make_row
from comem_ray.prompts import MAX_TEXT_CHARS

SPACES = " \t\n\u2003\x85\x1c"
WORDS = ["word", "a", "ü", "漢字", "🙂", ": ", '"', "\\", "\u2028", "\r\n", "…", "\x07"]


def random_text(rng: random.Random, longest: int) -> str:
    length, text = rng.randrange(longest), ""
    while len(text) < length:
        text += rng.choice(WORDS) + rng.choice(["", *SPACES]) * rng.randrange(3)
    return text


def random_upload(seed: int) -> Upload:
    rng = random.Random(seed)
    title = random_text(rng, rng.choice([1, 20, 900]))
    longest = rng.choice([1, 50, 200, MAX_TEXT_CHARS + 50, 3 * MAX_TEXT_CHARS])
    text = (
        random_text(rng, longest)
        if rng.random() < 0.7
        else "x" * (MAX_TEXT_CHARS - rng.randrange(30)) + "  \n " * 9 + "y"
    )
    picture = image(seed, rng.choice([30, 300, 700]), rng.choice([31, 200]))
    kind = rng.choice(["JPEG", "PNG", "WEBP", "BMP"])
    return Upload(
        encoded(picture, kind),
        rng.choice(["", " "]) + title,
        text,
        rng.choice([None, "", "en", "zh_hans", "PT-br", " de "]),
        rng.choice([None, "", "https://example.org/ü?a=1"]),
    )


def ingested(line: bytes, files: dict[str, bytes], limits: ImageConfig) -> dict:
    """The fields of the item that an ingest makes of a line."""
    (_, row), *others = jsonl.parse(next(jsonl.batches(iter([(line, None)]), 10, {})))
    assert not others
    assert isinstance(row, Row), row
    stored = normalize_image(files[row.image], limits)
    fields = {name: getattr(row, name) for name in ("language", "title", "text", "page_url", "image_url")}
    return {**fields, "image": stored.data, "width": stored.width, "height": stored.height}


@pytest.mark.parametrize("limits", [LIMITS, ImageConfig(max_side=64, resize="square"), ImageConfig(max_side=40)])
def test_an_ingest_of_its_line_gives_the_same_item(limits):
    uploads = [given for given in map(random_upload, range(60)) if (given.title + given.text).strip()]
    assert len(uploads) > 40
    for given in uploads:
        item = make_item(given, limits).item
        line, name = item_line(item)
        assert json.loads(line)["item_id"] == item.item_id
        assert b"\n" not in line
        fields = dict(vars(item))
        del fields["item_id"]
        assert ingested(line, {name: item.image}, limits) == fields


@pytest.mark.parametrize("length", range(MAX_TEXT_CHARS - 3, MAX_TEXT_CHARS + 3))
@pytest.mark.parametrize("title", ["", "T"])
@pytest.mark.parametrize("end", ["x", " x", "   x", "x   x"])
def test_a_text_around_the_cut_survives(length, title, end):
    text = ("y" * length)[: length - len(end)] + end
    item = make_item(upload(0, title=title, text=text), LIMITS).item
    line, name = item_line(item)
    assert ingested(line, {name: item.image}, LIMITS)["text"] == item.text


def test_the_id_is_the_digest_of_what_was_uploaded_unless_one_is_given():
    given = upload(3)
    row = make_row(
        language="en",
        title="Live 3",
        description=given.text,
        page_url=given.page_url,
        image_url=None,
        image=given.image,
    )
    assert make_item(given, LIMITS).item.item_id == row.item_id
    assert make_item(given, LIMITS, "0" * 24).item.item_id == "0" * 24
    for wrong in ("", "0" * 23, "G" * 24, "A" * 24, "0" * 24 + "\n"):
        with pytest.raises(ValueError, match="24 hex digits"):
            make_item(given, LIMITS, wrong)


ANIMATED = io.BytesIO()
image(1).save(ANIMATED, "GIF", save_all=True, append_images=[image(2)])
NOISE = Image.effect_noise((300, 300), 200)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"title": "", "text": " \n"}, "text"),
        ({"title": "x" * 1_001}, "title"),
        ({"page_url": "x" * 8_193}, "page_url"),
        ({"language": "English"}, "language"),
        ({"language": "e\0n"}, "language"),
        ({"title": "a\0b"}, "title"),
        ({"text": "a\0b"}, "text"),
        ({"page_url": "a\0b"}, "page_url"),
        ({"title": "a\ud800"}, "title"),
        ({"text": "a\udc00b"}, "text"),
        ({"image": b""}, "image"),
        ({"image": b"<svg/>"}, "image"),
        ({"image": b"junk"}, "image"),
        ({"image": png(0)[:-30]}, "image"),
        ({"image": png(0, 200, 1)}, "image"),
        ({"image": png(0, 900, 5)}, "image"),
        ({"image": png(0, 400, 300)}, "image"),
        ({"image": ANIMATED.getvalue()}, "image"),
        ({"image": encoded(NOISE, "PNG")}, "image"),
    ],
)
def test_what_ingest_rejects_is_refused_with_its_reason(changes, field):
    limits = ImageConfig(max_pixels=100_000, max_bytes=60_000)
    given = upload(0, **changes)
    row = make_row(
        language=given.language,
        title=given.title,
        description=given.text,
        page_url=given.page_url,
        image_url=None,
        image=given.image,
    )
    if isinstance(row, RowFault):
        expected = row.reason, row.detail
    else:
        with pytest.raises(ImageError) as error:
            normalize_image(given.image, limits)
        expected = error.value.reason, error.value.detail
    with pytest.raises(ItemRefused) as refused:
        make_item(given, limits)
    assert (refused.value.reason, refused.value.detail, refused.value.field) == (*expected, field)


def test_an_image_that_ingest_would_reject_once_it_is_stored_is_refused():
    data = encoded(image(0, 500, 400).convert("P", palette=Image.Palette.ADAPTIVE, colors=2), "PNG")
    limits = ImageConfig(max_bytes=len(data) + 10, jpeg_quality=100)
    with pytest.raises(ItemRefused, match="bytes as it would be stored, the limit is") as refused:
        make_item(upload(0, image=data), limits)
    assert (refused.value.reason, refused.value.field) == ("image_too_many_bytes", "image")
