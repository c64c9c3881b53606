"""The files of a live source, written by hand as `comem_ray/knowledge/live/export.py` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def live_line(folder: Path, item_id: str, title: str, image: bytes, text: str = "Live.") -> dict[str, Any]:
    """The line of a live item, whose image is written into `folder`."""
    name = f"images/{hashlib.sha256(image).hexdigest()}.png"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(image)
    return {"item_id": item_id, "image": name, "title": title, "text": text, "language": "en", "page_url": None}


def write_live_source(folder: Path, seq: int, lines: Sequence[Mapping[str, Any]], deleted: Sequence[str] = ()) -> None:
    """The live source of change `seq`; that of an earlier change goes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"items": f"items-{seq}.jsonl", "deleted": f"deleted-{seq}.txt"}
    (folder / names["items"]).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / names["deleted"]).write_text("".join(f"{item_id}\n" for item_id in sorted(deleted)))
    (folder / "current.json").write_text(json.dumps({"seq": seq, **names}))
    for path in [*folder.glob("items-*"), *folder.glob("deleted-*")]:
        if path.name not in names.values():
            path.unlink()
