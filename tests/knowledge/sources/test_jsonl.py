import json

import pytest

from comem_ray.knowledge.sources import jsonl
from comem_ray.knowledge.sources.rows import Row


def read(tmp_path, *rows: object):
    path = tmp_path / "items.jsonl"
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return [row for batch in jsonl.read(path, 2) for _, row in jsonl.parse(batch)]


def test_fields(tmp_path):
    (row,) = read(
        tmp_path,
        {"image": "a.png", "title": "Oak", "text": "A tree.", "language": "en", "page_url": "https://e.org", "x": 1},
    )
    assert (row.text, row.language, row.page_url, row.image_url) == ("Oak: A tree.", "en", "https://e.org", None)
    assert row.image == "a.png"


def test_description_stands_for_text_and_language_may_lack(tmp_path):
    (row,) = read(tmp_path, {"image": "a.png", "description": "A tree."})
    assert (row.text, row.title, row.language) == ("A tree.", "", "und")


def test_a_local_image_with_its_address_on_the_web(tmp_path):
    (row,) = read(tmp_path, {"image": "a.png", "image_url": "https://e.org/a.png", "title": "Oak"})
    assert (row.image, row.image_url) == ("a.png", "https://e.org/a.png")


def test_an_id_takes_the_place_of_the_digest(tmp_path):
    fields = {"image": "a.png", "title": "Oak"}
    given, derived, null = read(tmp_path, {**fields, "item_id": "a1" * 12}, fields, {**fields, "item_id": None})
    assert (given.item_id, given.digest) == ("a1" * 12, derived.item_id)
    assert derived == null
    assert derived.digest == derived.item_id


@pytest.mark.parametrize("item_id", ["", "a1", "A1" * 12, "a1" * 12 + "\n", "g1" * 12, "0" * 24, "١" * 24])
def test_an_id_of_another_form_is_refused(tmp_path, item_id):
    (row,) = read(tmp_path, {"image": "a.png", "title": "Oak", "item_id": item_id})
    assert row.reason == "item_id_invalid"
    assert "want 24 hex digits" in row.detail


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "json_invalid"),
        (b"[" * 100_000, "json_invalid"),
        (b'{"title": "\xff"}', "bad_utf8"),
        (b"", "empty_line"),
        ([1], "json_type"),
        ({"image": "a.png", "title": 3}, "json_type"),
        ({"image": "a.png", "title": "Oak", "item_id": 17}, "json_type"),
        ({"image": {"bytes": ""}, "title": "Oak"}, "json_type"),
        ({"image": "a.png"}, "no_text"),
        ({"title": "Oak"}, "no_image"),
        ({"image": "a.png", "title": "a\0"}, "nul_byte"),
        ({"image": ["a.png", "b.png"], "title": "Oak"}, "json_type"),
        ({"image": "a.png", "title": "Oak", "language": "français"}, "language_invalid"),
        ({"image": "a.png", "title": "Oak", "language": False}, "json_type"),
        ({"image": "a.png", "title": "Oak", "language": "x" * 5_000}, "language_invalid"),
        ({"image": "a.png", "title": "Oak" * 2_000}, "field_too_long"),
        (b'{"image": "a.png", "title": "\\ud800"}', "bad_utf8"),
    ],
)
def test_broken_lines_cost_themselves_alone(tmp_path, line, reason):
    good = {"image": "a.png", "title": "Oak"}
    before, broken, after = read(tmp_path, good, line, good)
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert broken.reason == reason


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": ["a.png", "b.png"]}, "field image is an array of 2, wanted a string or null: an item has one image"),
        ({"image": {"bytes": ""}}, "field image is an object"),
        ({"image": "a.png", "language": False}, "field language is a boolean, wanted a string"),
        ({"image": "a.png", "title": 3}, "field title is a number"),
        ([1], "the line is an array of 1, wanted an object"),
    ],
)
def test_a_wrong_type_is_named_as_json_calls_it(tmp_path, row, words):
    (fault,) = read(tmp_path, row)
    assert words in fault.detail


def test_an_empty_file_is_one_rejected_row(tmp_path):
    (row,) = read(tmp_path)
    assert row.reason == "source_empty"
