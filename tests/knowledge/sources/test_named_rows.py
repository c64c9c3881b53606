import json

import pytest

from comem_ray.knowledge.sources.named_rows import NamedRow, batches, fault_row, parse, used_names
from comem_ray.knowledge.sources.rows import Row, RowFault


def parsed(row: NamedRow, columns=()):
    ((raw, outcome),) = [pair for batch in batches([row], 5, columns) for pair in parse(batch)]
    assert json.loads(raw) == json.loads(json.dumps(row.values))
    return outcome


def test_fields_come_from_columns_of_usual_names():
    row = parsed(NamedRow({"caption": "An oak.", "url": "https://x.org/a.jpg", "page_title": "Oak", "lang": "en_us"}))
    assert (row.text, row.title, row.language) == ("Oak: An oak.", "Oak", "en-US")
    assert row.image == row.image_url == "https://x.org/a.jpg"


def test_the_first_column_with_a_value_counts():
    assert parsed(NamedRow({"text": "", "caption": "An oak."}, b"x")).text == "An oak."
    assert parsed(NamedRow({"txt": "a", "caption": "b"}, b"x")).text == "a"


def test_a_named_column_counts_alone():
    columns = (("text", "alt"), ("title", "name"))
    row = parsed(NamedRow({"alt": "An oak.", "caption": "no", "name": "Oak"}, b"x"), columns)
    assert row.text == "Oak: An oak."
    assert parsed(NamedRow({"caption": "An oak."}, b"x"), columns).reason == "no_text"
    assert {"alt", "name", "url"} <= used_names(columns)
    assert "caption" not in used_names(columns)


def test_several_captions_are_one_text_and_nan_is_none():
    assert parsed(NamedRow({"caption": ["a", "b"], "title": float("nan")}, b"x")).text == "a\nb"


@pytest.mark.parametrize("value", [3, True, {"a": 1}, ["a", 2], [[]]])
def test_a_value_of_another_type_is_rejected(value):
    fault = parsed(NamedRow({"caption": value}, b"x"))
    assert isinstance(fault, RowFault)
    assert fault.reason == "value_type"
    assert "caption" in fault.detail


def test_bytes_count_before_paths_and_make_the_identity():
    first, second = parsed(NamedRow({"caption": "a"}, b"x")), parsed(NamedRow({"caption": "a"}, b"y"))
    assert (first.image, second.image) == (b"x", b"y")
    assert first.item_id != second.item_id
    assert parsed(NamedRow({"caption": "a", "image": "folder/a.jpg"})).image == "folder/a.jpg"


def test_a_text_embedding_is_that_of_the_caption_alone():
    vector = b"\0\x3c"
    row = parsed(NamedRow({"caption": "a"}, b"x", vector, vector))
    assert isinstance(row, Row)
    assert (row.image_embedding, row.text_embedding) == (vector, vector)
    assert parsed(NamedRow({"caption": "a", "title": "b"}, b"x", vector, vector)).text_embedding is None


def test_batches_are_bounded_by_rows_and_bytes(monkeypatch):
    monkeypatch.setattr("comem_ray.knowledge.sources.named_rows.CHUNK_BYTES", 100)
    rows = [NamedRow({"caption": str(n)}, bytes(60)) for n in range(5)]
    assert [batch.num_rows for batch in batches(rows, 3, ())] == [2, 2, 1]
    assert [batch.num_rows for batch in batches([NamedRow({})] * 7, 3, ())] == [3, 3, 1]


def test_faults_travel():
    assert parsed(fault_row("image_missing", "gone", True, {"key": "7"})) == RowFault("image_missing", "gone", True)
