"""Schemas of shards, and the columns that version 0.1 wrote under other names."""

from pathlib import Path

import pyarrow as pa
import pytest
from support.tiny import item_row, shard_paths, write_items

from comem_ray.knowledge.schema import (
    DIGEST_BYTES,
    ITEM_SCHEMA,
    content_digest,
    current_columns,
    embedding_schema,
    item_contents,
    item_schema,
    stored_column,
)


def test_embeddings_have_one_vector_per_kind():
    assert embedding_schema(24).names == ["item_id", "content", "image_embedding", "text_embedding"]
    assert embedding_schema(24, texts=False).names == ["item_id", "content", "image_embedding"]
    assert embedding_schema(24).field("image_embedding").type == pa.list_(pa.float16(), 24)


@pytest.mark.parametrize(("names", "stored"), [(["image"], "image"), (["picture"], "picture"), (["text"], "image")])
def test_a_column_is_read_under_its_old_name_if_the_shard_has_that(names, stored):
    assert stored_column(pa.schema([(name, pa.binary()) for name in names]), "image") == stored


def test_a_column_that_was_not_renamed_has_one_name():
    assert stored_column(ITEM_SCHEMA, "title") == stored_column(pa.schema([]), "title") == "title"


def test_a_table_gets_the_names_of_now_and_keeps_its_values():
    old = pa.table({"item_id": ["a"], "picture": [b"x"], "picture_embedding": [[0.5]]})
    new = current_columns(old)
    assert new.column_names == ["item_id", "image", "image_embedding"]
    assert new.to_pylist() == [{"item_id": "a", "image": b"x", "image_embedding": [0.5]}]
    assert current_columns(new).equals(new)


def test_the_content_of_an_item_is_its_text_and_its_image() -> None:
    digests = [
        content_digest("a", b"b"),
        content_digest("ab", b""),
        content_digest("", b"ab"),
        content_digest("a", b"c"),
    ]
    assert len(set(digests)) == 4
    assert {len(digest) for digest in digests} == {DIGEST_BYTES}
    assert content_digest("a", b"b") == digests[0]


def test_the_contents_of_a_shard_come_by_id_in_its_order(tmp_path: Path) -> None:
    write_items(tmp_path, [70])
    (path,) = shard_paths(tmp_path)
    rows = [item_row(i) for i in range(70)]
    assert list(item_contents(path).items()) == [(r["item_id"], content_digest(r["text"], r["image"])) for r in rows]


def test_ready_embeddings_are_further_columns_of_items():
    assert item_schema({}).equals(ITEM_SCHEMA)
    schema = item_schema({"text_embedding": 24, "image_embedding": 24})
    assert schema.names == [*ITEM_SCHEMA.names, "image_embedding", "text_embedding"]
    assert schema.field("image_embedding").type == embedding_schema(24).field("image_embedding").type
