"""The Arrow schemas of the shards of items, rejected rows and embeddings.

Only plain Arrow types, so that every shard opens with pyarrow, pandas or DuckDB, without this package. Version 0.1
wrote two columns under other names; `stored_column` and `current_columns` let readers accept both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from comem_ray.artifacts import ROW_GROUP_ROWS

DIGEST_BYTES = 16
OLD_NAMES = {"image": "picture", "image_embedding": "picture_embedding"}
"""Columns by their name now, with the name that version 0.1 wrote."""

ITEM_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),  # 24 hex digits, a digest of what makes the item itself
        pa.field("language", pa.string(), nullable=False),  # BCP 47 (comem_ray.language), "und" if unknown
        pa.field("title", pa.string(), nullable=False),  # "" if the source has none
        pa.field("text", pa.string(), nullable=False),  # "{title}: {description}", at most MAX_TEXT_CHARS (prompts)
        pa.field("page_url", pa.string()),
        pa.field("image_url", pa.string()),
        pa.field("image", pa.binary(), nullable=False),  # JPEG or PNG, RGB, upright, longest side <= the limit
        pa.field("width", pa.int32(), nullable=False),  # pixels of `image`
        pa.field("height", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # file name of the source
        pa.field("source_row", pa.int64(), nullable=False),  # row in that file, 0 is the first after the header
    ]
)

READY_COLUMNS = ("image_embedding", "text_embedding")
"""Columns that an item shard has where its source brought CLIP embeddings along (sources/clip_retrieval.py)."""


def item_schema(widths: Mapping[str, int]) -> pa.Schema:
    """ITEM_SCHEMA with the columns of ready embeddings that `widths` names, each with the width C of its vectors.

    The vectors are float16 of length 1; null where the source has none of an item.
    """
    ready = [pa.field(name, pa.list_(pa.float16(), widths[name])) for name in READY_COLUMNS if name in widths]
    return pa.schema([*ITEM_SCHEMA, *ready])


REJECTED_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # a code, such as "image_animated"
        pa.field("detail", pa.string(), nullable=False),  # a sentence: what was wrong and what would be right
        pa.field("retryable", pa.bool_(), nullable=False),  # true if a later run may succeed (a network failure)
        pa.field("image_url", pa.string()),
        pa.field("item_id", pa.string()),  # of the item that the row would be, if it can be read as one
        pa.field("raw", pa.binary(), nullable=False),  # the row as it is in the file, at most 4,096 bytes of it
    ]
)


REJECTED_ITEM_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # a code, such as "not_finite"
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""Items that a later stage could not take: the others of their shard are made without them."""


def content_digest(text: str, image: bytes) -> bytes:
    """DIGEST_BYTES bytes that change with what a model is given of an item. The `item_id` says nothing of pixels."""
    return hashlib.blake2b(f"{len(text)}:{text}".encode() + image, digest_size=DIGEST_BYTES).digest()


def embedding_schema(width: int, texts: bool = True) -> pa.Schema:
    """Schema of a shard of CLIP embeddings, rows in the order of the item shard of the same name.

    `width` is C, the width of the CLIP space. Vectors are L2-normalised and stored as float16. Without `texts` the
    column of text embeddings is left out.
    """
    columns = ["image_embedding", "text_embedding"] if texts else ["image_embedding"]
    vectors = [pa.field(column, pa.list_(pa.float16(), width), nullable=False) for column in columns]
    content = pa.field("content", pa.binary(DIGEST_BYTES), nullable=False)  # content_digest of text and image
    return pa.schema([pa.field("item_id", pa.string(), nullable=False), content, *vectors])


def stored_column(schema: pa.Schema, name: str) -> str:
    """The name under which a shard of `schema` holds the column `name`: this one, or that of version 0.1."""
    old = OLD_NAMES.get(name, name)
    return old if name not in schema.names and old in schema.names else name


def current_columns(table: pa.Table) -> pa.Table:
    """`table` with its columns under their names of now."""
    new_names = {old: new for new, old in OLD_NAMES.items()}
    return table.rename_columns([new_names.get(name, name) for name in table.column_names])


def item_contents(path: Path) -> dict[str, bytes]:
    """`content_digest` by item_id of an item shard, in its order."""
    digests = {}
    with pq.ParquetFile(path) as file:
        columns = ["item_id", "text", stored_column(file.schema_arrow, "image")]
        for batch in file.iter_batches(ROW_GROUP_ROWS, columns=columns):
            for item_id, text, image in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                digests[item_id] = content_digest(text, image)
    return digests
