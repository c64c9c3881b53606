"""The live source: the files that jobs.ingest reads the live items from, written from the journal.

    current.json             {"seq", "items", "deleted"}: the names of the two files below, written last
    items-<seq>.jsonl        one line per live item, in the order of first addition
    deleted-<seq>.txt        the ids, sorted, that rows of the configured sources may not have any more
    images/<sha256>.jpg|png  the items' images

An export goes on from the one before: the journal may have forgotten what that one holds. One that was killed leaves
files that the next one removes, and nothing else. Knows nothing of shards.
"""

from __future__ import annotations

import hashlib
import json

from comem_ray.knowledge.image_metadata import PNG
from comem_ray.knowledge.items import Item
from comem_ray.knowledge.live.items import item_description

IMAGES = "images"


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
