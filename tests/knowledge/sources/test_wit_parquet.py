import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comem_ray.knowledge.sources import wit_parquet
from comem_ray.knowledge.sources.rows import Row, RowFault

TEXT = pa.list_(pa.string())
FEATURES = pa.struct([(name, TEXT) for name in (*wit_parquet.TEXTS, "section_title")])
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_url", pa.string()),
        ("original_height", pa.int32()),
        ("wit_features", FEATURES),
    ]
)


def entry(n: int, languages: list[str], **changes: object) -> dict:
    features = {
        "language": languages,
        "page_url": [f"https://{code}.example.org/{n}" for code in languages],
        "page_title": [f"Title {n} {code}" for code in languages],
        "context_page_description": ["page" for _ in languages],
        "context_section_description": ["section" if code == "en" else None for code in languages],
        "section_title": [None for _ in languages],
    }
    image = {"bytes": b"image %d" % n, "path": None}
    row = {"image": image, "image_url": f"https://example.org/{n}.jpg", "original_height": 3, "wit_features": features}
    return {**row, **changes}


def write(tmp_path, rows: list[dict], group: int = 100, schema: pa.Schema = SCHEMA):
    path = tmp_path / "wit.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=group)
    return path


def parsed(path, limit: int = 1_000):
    batches = list(wit_parquet.read(path, limit))
    rows = [list(wit_parquet.parse(batch)) for batch in batches]
    assert [wit_parquet.count_rows(batch) for batch in batches] == [len(part) for part in rows]
    return [pair for part in rows for pair in part], [len(part) for part in rows]


def test_each_language_is_a_source_row_with_the_same_image(tmp_path):
    rows, _ = parsed(write(tmp_path, [entry(0, ["en", "de"]), entry(1, ["fr"])]))
    items = [row for _, row in rows]
    assert [row.text for row in items] == ["Title 0 en: section", "Title 0 de: page", "Title 1 fr: page"]
    assert [row.language for row in items] == ["en", "de", "fr"]
    assert [row.image for row in items] == [b"image 0", b"image 0", b"image 1"]
    assert items[0].image is items[1].image
    assert items[0].image_url == "https://example.org/0.jpg"
    assert items[2].page_url == "https://fr.example.org/1"
    assert json.loads(rows[1][0])["page_title"] == "Title 0 de"


def test_chunks_hold_whole_parquet_rows(tmp_path):
    rows = [entry(n, ["en", "de", "fr"][: 1 + n % 3]) for n in range(10)] + [entry(10, ["xx"] * 9)]
    _, sizes = parsed(write(tmp_path, rows, group=4), limit=4)
    assert sum(sizes) == 1 + 2 + 3 + 1 + 2 + 3 + 1 + 2 + 3 + 1 + 9
    assert max(sizes[:-1]) <= 4
    assert sizes[-1] == 9


def test_a_row_without_languages_is_one_rejected_row(tmp_path):
    rows, _ = parsed(write(tmp_path, [entry(0, []), entry(1, ["en"], wit_features=None), entry(2, ["en"])]))
    assert [getattr(row, "reason", "item") for _, row in rows] == ["no_text", "no_text", "item"]


def test_without_bytes_the_url_then_the_path(tmp_path):
    rows = [
        entry(0, ["en"], image=None),
        entry(1, ["en"], image={"bytes": b"", "path": "b.jpg"}),
        entry(2, ["en"], image={"bytes": None, "path": "c.jpg"}, image_url=None),
        entry(3, ["en"], image=None, image_url=None),
    ]
    rows_read = [row for _, row in parsed(write(tmp_path, rows))[0]]
    assert [row.image for row in rows_read[:3]] == ["https://example.org/0.jpg", "https://example.org/1.jpg", "c.jpg"]
    assert rows_read[3].reason == "no_image"


def test_a_list_of_structs_reads_the_same(tmp_path):
    turned = pa.list_(pa.struct([("language", pa.string()), ("page_title", pa.string())]))
    schema = pa.schema([("image", pa.binary()), ("wit_features", turned)])
    features = [{"language": "en", "page_title": "Oak"}, None]
    rows, _ = parsed(write(tmp_path, [{"image": b"x", "wit_features": features}], schema=schema))
    assert rows[0][1].text == "Oak"
    assert rows[1][1].reason == "no_text"


def test_bad_utf8_costs_its_row_alone(tmp_path):
    rows = [entry(0, ["en"]), entry(1, ["en", "de"]), entry(2, ["en"])]
    table = pa.Table.from_pylist(rows, SCHEMA)
    path = tmp_path / "wit.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"Title 1 de", b"Title \xff de"))
    rows_read = [row for _, row in parsed(path)[0]]
    assert [getattr(row, "reason", "item") for row in rows_read] == ["item", "bad_utf8", "bad_utf8", "item"]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "parquet_corrupt"), (b"PAR1garbage", "parquet_corrupt"), (None, "source_unreadable")]
)
def test_a_file_that_is_no_parquet_is_one_rejected_row(tmp_path, data, reason):
    path = tmp_path / "broken.parquet"
    if data is not None:
        path.write_bytes(data)
    ((_, fault),), _ = parsed(path)
    assert (fault.reason, fault.retryable) == (reason, reason == "source_unreadable")


def test_missing_columns_are_one_rejected_row(tmp_path):
    schema = pa.schema([("image_url", pa.string())])
    ((_, fault),), _ = parsed(write(tmp_path, [{"image_url": "x"}], schema=schema))
    assert fault.reason == "parquet_columns"


def test_a_damaged_row_group_is_one_rejected_row_and_the_next_is_read(tmp_path):
    path = write(tmp_path, [entry(n, ["en"]) for n in range(30)], group=10)
    meta = pq.read_metadata(path).row_group(1)
    data = bytearray(path.read_bytes())
    start = meta.column(0).data_page_offset
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(data))
    rows = [row for _, row in parsed(path)[0]]
    assert sum(isinstance(row, Row) for row in rows) >= 20
    assert [row.reason for row in rows if isinstance(row, RowFault)] == ["parquet_corrupt"]
    assert rows[-1].text == "Title 29 en: section"


def test_languages_and_lengths_are_checked_as_in_every_format(tmp_path):
    long = entry(3, ["en"])
    long["wit_features"]["page_title"] = ["x" * 5_000]
    rows = [entry(0, ["en_US", "français"]), entry(1, ["zh_hant"]), entry(2, [""]), long]
    read_rows = [row for _, row in parsed(write(tmp_path, rows))[0]]
    outcomes = [row.language if isinstance(row, Row) else row.reason for row in read_rows]
    assert outcomes == ["en-US", "language_invalid", "zh-Hant", "und", "field_too_long"]
