"""Files that share a key make one row: `x.jpg` with `x.txt` or `x.json`, in a tar (webdataset) or in a folder.

The text file is the caption. The JSON file is an object whose fields are the row's columns. Opens no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any

from comem_ray.knowledge.sources.named_rows import NamedRow, fault_row
from comem_ray.knowledge.sources.rows import RowFault

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
ENDINGS = (*IMAGE_ENDINGS, "txt", "json")
MAX_FILE_BYTES = 48 * 2**20  # as long as a line of JSONL may be
KEY = "__key__"  # webdataset's own name of the column


def split_key(name: str) -> tuple[str, str]:
    """Key and ending of a file's path, as webdataset cuts it: at the first dot of the last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()


def keyed_row(key: str, files: Mapping[str, bytes | RowFault], names: Set[str]) -> NamedRow:
    """The row of the files of one key, by ending; of the JSON's fields those in `names`.

    An image file may be absent: then the JSON names the image, or the row is rejected as one without.
    """
    values: dict[str, Any] = {KEY: key}
    for ending in ("json", "txt"):
        content = files.get(ending)
        if isinstance(content, RowFault):
            return NamedRow(values, fault=content)
        if content is None:
            continue
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return fault_row("bad_utf8", f"byte {error.start} of {key}.{ending} is not UTF-8", values=values)
        if ending == "txt":
            values["txt"] = text
            continue
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return fault_row("json_invalid", f"{key}.json is not JSON", values=values)
        if not isinstance(data, dict):
            return fault_row("json_type", f"{key}.json does not hold an object", values=values)
        values |= {name: value for name, value in data.items() if name in names}
    image = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
    if isinstance(image, RowFault):
        return NamedRow(values, fault=image)
    return NamedRow(values, image)
