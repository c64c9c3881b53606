"""Webdataset tars: neighbouring members of one key (`00017.jpg`, `00017.txt`, `00017.json`) are one row.

The key is the member's path up to the first dot of its name. A key needs an image, or a JSON that names one, and a
text. What a broken tar holds before the break is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from comem_ray.knowledge.sources.files import SourceFile
from comem_ray.knowledge.sources.keyed import ENDINGS, keyed_row, split_key
from comem_ray.knowledge.sources.named_rows import NamedRow, batches, parse, used_names
from comem_ray.knowledge.sources.rows import RowFault
from comem_ray.knowledge.sources.tars import read_members

__all__ = ["parse", "read"]


def read(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of a tar, each of at most `rows` keys."""
    return batches(_rows(file), rows, file.columns)


def _rows(file: SourceFile) -> Iterator[NamedRow]:
    names = used_names(file.columns)
    key, files, empty = "", dict[str, bytes | RowFault](), True
    for member in read_members(Path(file.path)):
        if isinstance(member, RowFault):
            if files:  # the members of the last key before a break may not be all of them
                yield NamedRow({"__key__": key}, fault=RowFault(member.reason, f"within key {key}: {member.detail}"))
                files, empty = {}, False
            else:
                yield NamedRow({}, fault=member)
                empty = False
            continue
        own, ending = split_key(member.name)
        if ending not in ENDINGS:
            continue
        if own != key and files:
            yield keyed_row(key, files, names)
            files = {}
        key, empty = own, False
        files.setdefault(ending, member.data)
    if files:
        yield keyed_row(key, files, names)
    elif empty:
        yield NamedRow({}, fault=RowFault("source_empty", "the tar holds no image, text or JSON file"))
