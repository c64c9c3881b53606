"""The live source: what was added to a knowledge base and deleted from it while its service ran.

The service's last export wrote it into the folder `live` of the run:

    current.json        {"seq": S, "items": "items-S.jsonl", "deleted": "deleted-S.txt"}, written last
    items-S.jsonl       one added or replaced item per line, in order of first addition, each with its "item_id"
    deleted-S.txt       ids, one per line and sorted: items of the configured sources that were deleted or replaced
    images/             the images that the lines name

S is the number of the last change that is in it. Every line was an item before, and was acknowledged to the person who
sent it: a line or an image that cannot be read is damage, never a rejected row. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.sources.files import LIVE, SourceFile, unused_label
from comem_ray.knowledge.sources.rows import ID_BYTES, is_item_id
from comem_ray.knowledge.sources.scan import Scan

CURRENT = "current.json"


@dataclass(frozen=True)
class LiveSource:
    """`deleted` (n, 12) uint8 are the ids that the configured sources lose. `file` is None where no item was added."""

    seq: int
    file: SourceFile | None
    deleted: np.ndarray


def live_source(folder: Path, files: Sequence[SourceFile]) -> LiveSource | None:
    """The live source in `folder`, to be read after `files`; None if nothing was exported there.

    Raises ArtifactError, naming the file, if it is not as an export leaves it.
    """
    current = _current(folder / CURRENT)
    if current is None:
        return None
    seq, items, deleted = current
    file = SourceFile(unused_label(f"{LIVE}.jsonl", files), str(items), "jsonl", str(folder), live=True)
    return LiveSource(seq, file if _size(items) else None, _ids(deleted))


def refuse_damaged(file: SourceFile, scan: Scan) -> None:
    """Raises ArtifactError where a line of the live source is not an item."""
    lost = np.flatnonzero(~scan.identities.any(axis=1))
    if len(lost):
        raise ArtifactError(
            f"{file.path} is damaged: {len(lost)} of {len(scan.identities)} lines are not items, the first is line "
            f"{lost[0] + 1}. {_AGAIN}"
        )


_AGAIN = "Copy it from a backup: it holds items that were added over HTTP, and no stage can make them again"


def _current(path: Path) -> tuple[int, Path, Path] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        seq = data["seq"]
        names = {"items": f"items-{seq}.jsonl", "deleted": f"deleted-{seq}.txt"}
        if type(seq) is not int or {name: data[name] for name in names} != names:
            raise ValueError(f"it names {data}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error!r}). {_AGAIN}") from error
    return seq, path.parent / names["items"], path.parent / names["deleted"]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ArtifactError(f"{path} is missing ({error.strerror}), and {CURRENT} names it. {_AGAIN}") from error


def _ids(path: Path) -> np.ndarray:
    """The ids of a file with one per line, (n, 12) uint8."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is missing or damaged ({error}), and {CURRENT} names it. {_AGAIN}") from error
    ids = text.split("\n")
    if ids.pop() or not all(map(is_item_id, ids)) or any(a >= b for a, b in pairwise(ids)):
        raise ArtifactError(f"{path} is damaged: want one item_id per line, sorted, none twice. {_AGAIN}")
    return np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, ID_BYTES)
