"""The live source: the files that jobs.ingest reads the live items from, written from the journal.

    current.json             {"seq", "items", "deleted"}: the names of the two files below, written last
    items-<seq>.jsonl        one line per live item, in the order of first addition
    deleted-<seq>.txt        the ids, sorted, that rows of the configured sources may not have any more
    images/<sha256>.jpg|png  the items' images

An export goes on from the one before: the journal may have forgotten what that one holds. An item that is replaced
keeps its line's place. One that was killed leaves files that the next one removes, and nothing else.

"deleted" lists every id that was ever deleted or put here: an item that was put stands for a row of that id, if there
is one. An id that no source has does no harm. Knows nothing of shards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from comem_ray.artifacts import ArtifactError, storage_errors, write_atomic, write_json
from comem_ray.knowledge.image_metadata import PNG
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.database import EXPORTED
from comem_ray.knowledge.live.items import item_description
from comem_ray.knowledge.live.journal import Journal

IMAGES = "images"
LINES_TOGETHER = 64  # items whose images are in memory at a time
_OLDER = re.compile(r"(items-\d+\.jsonl|deleted-\d+\.txt|\.(items|deleted|current).*\.tmp)")
_IMAGE = re.compile(r"\.?[0-9a-f]{64}\.(jpg|png).*")


T = TypeVar("T")


@dataclass(frozen=True)
class LiveSource:
    """What current.json says: the state of the knowledge after change `seq`, in two files of its folder."""

    seq: int
    items: str
    deleted: str


def read_current(folder: Path) -> LiveSource | None:
    """The live source in `folder`, None if nothing was exported. Raises ArtifactError if current.json is damaged."""
    path = folder / EXPORTED
    try:
        return LiveSource(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): put back a backup of the folder {folder}") from error


def export(journal: Journal, folder: Path) -> int:
    """Writes the live source into `folder` and returns its sequence number: no change up to it is left out.

    Changes that are written meanwhile may be in it too. Raises ArtifactError where the export before is damaged,
    StorageError where the filesystem refuses.
    """
    with journal.exporting:
        seq, earlier = journal.seq, read_current(folder)
        entries = dict(journal.entries(earlier.seq if earlier else 0))
        source = LiveSource(seq, f"items-{seq}.jsonl", f"deleted-{seq}.txt")
        images: set[str] = set()
        write_atomic(folder / source.items, lambda p: _write_items(p, journal, folder, earlier, entries, images))
        ids = sorted({*_earlier_deleted(folder, earlier), *entries})
        text = "".join(f"{item_id}\n" for item_id in ids)
        write_atomic(folder / source.deleted, lambda p: p.write_text(text, encoding="utf-8"))
        write_json(folder / EXPORTED, vars(source))
        _remove_older(folder, source, images)
        return seq


def item_line(item: Item) -> tuple[bytes, str]:
    """The line of an item, without its end, and the name of its image."""
    assert item.image is not None, "an item is exported with its image"
    ending = "png" if item.image.startswith(PNG) else "jpg"
    name = f"{IMAGES}/{hashlib.sha256(item.image).hexdigest()}.{ending}"
    fields = {
        "item_id": item.item_id,
        "image": name,
        "title": item.title,
        "text": item_description(item),
        "language": item.language,
        "page_url": item.page_url,
    }
    return json.dumps(fields, ensure_ascii=False).encode(), name


def _write_items(
    path: Path,
    journal: Journal,
    folder: Path,
    earlier: LiveSource | None,
    entries: dict[str, bool],
    images: set[str],
) -> None:
    """Writes the lines: the earlier ones as the journal left them, then the new ones. Collects the images' names."""
    earlier_ids: set[str] = set()
    with open(path, "wb") as file:
        for lines in _batches(_earlier_lines(folder, earlier)):
            changed = [item_id for item_id, _, _ in lines if item_id in entries]
            earlier_ids.update(changed)
            items = journal.contents(changed)
            for item_id, line, image in lines:
                if item_id in changed:
                    _write_item(file, folder, items.get(item_id), images)
                else:
                    file.write(line + b"\n")
                    images.add(image)
        added = [item_id for item_id, deleted in entries.items() if not deleted and item_id not in earlier_ids]
        for ids in _batches(added):
            items = journal.contents(ids)
            for item_id in ids:
                _write_item(file, folder, items.get(item_id), images)


def _write_item(file: BinaryIO, folder: Path, item: Item | None, images: set[str]) -> None:
    """Writes the line of an item, and its image if it is not there yet; nothing for one that is deleted."""
    if item is None:
        return
    line, name = item_line(item)
    path, data = folder / name, item.image or b""
    if not path.is_file() or path.stat().st_size != len(data):
        write_atomic(path, lambda p: p.write_bytes(data))
    file.write(line + b"\n")
    images.add(name)


def _earlier_lines(folder: Path, earlier: LiveSource | None) -> Iterator[tuple[str, bytes, str]]:
    """The lines of the export before: item id, line without its end, name of the image."""
    if earlier is None:
        return
    path = folder / earlier.items
    try:
        with open(path, "rb") as file:
            for line in file:
                fields = json.loads(line)
                yield fields["item_id"], line.rstrip(b"\n"), fields["image"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): put back a backup of the folder {folder}") from error


def _earlier_deleted(folder: Path, earlier: LiveSource | None) -> list[str]:
    if earlier is None:
        return []
    path = folder / earlier.deleted
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): put back a backup of the folder {folder}") from error


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while batch := list(islice(rest, LINES_TOGETHER)):
        yield batch


def _remove_older(folder: Path, source: LiveSource, images: set[str]) -> None:
    """Removes what earlier exports, and exports that were killed, left in the folder."""
    with storage_errors(folder):
        for path in folder.iterdir():
            if _OLDER.fullmatch(path.name) and path.name not in (source.items, source.deleted):
                path.unlink(missing_ok=True)
        for path in (folder / IMAGES).glob("*"):
            if _IMAGE.fullmatch(path.name) and f"{IMAGES}/{path.name}" not in images:
                path.unlink(missing_ok=True)
