import pytest

from comem_ray.knowledge.sources.keyed import keyed_row, split_key
from comem_ray.knowledge.sources.rows import RowFault

NAMES = {"caption", "title", "url", "txt"}


@pytest.mark.parametrize(
    ("name", "key", "ending"),
    [("00017.jpg", "00017", "jpg"), ("a.b/c.seg.PNG", "a.b/c", "seg.png"), ("readme", "readme", "")],
)
def test_a_key_ends_at_the_first_dot_of_the_name(name, key, ending):
    assert split_key(name) == (key, ending)


def test_text_and_the_fields_of_the_json_are_values():
    row = keyed_row("7", {"jpg": b"x", "txt": b"An oak.", "json": b'{"title": "Oak", "exif": "..."}'}, NAMES)
    assert row.image == b"x"
    assert row.values == {"__key__": "7", "title": "Oak", "txt": "An oak."}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"txt": b"\xff"}, "bad_utf8"),
        ({"json": b"{"}, "json_invalid"),
        ({"json": b"[" * 100_000}, "json_invalid"),
        ({"json": b"[]"}, "json_type"),
        ({"txt": b"a", "jpg": RowFault("image_too_many_bytes", "")}, "image_too_many_bytes"),
        ({"txt": RowFault("source_unreadable", "", True)}, "source_unreadable"),
    ],
)
def test_what_cannot_be_read_is_a_fault(files, reason):
    fault = keyed_row("7", files, NAMES).fault
    assert fault is not None
    assert fault.reason == reason
