"""The bytes of a row's image: from the row itself, a data URI, a file below the source's folder, or a URL.

A path that leads out of the folder (.., an absolute path, a symbolic link) is refused. Decodes no image.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from pathlib import Path

from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def image_bytes(image: str | bytes, folder: Path, fetcher: Fetcher, max_bytes: int) -> bytes:
    """The bytes that `image` of a Row refers to. Raises ImageError, FetchError for a URL."""
    if isinstance(image, bytes):
        return image
    if image[:5].lower() == "data:":
        return _data_uri(image)
    if _SCHEME.match(image):
        return fetcher.fetch(image)
    return _file(image, folder, max_bytes)


def is_local_file(image: str) -> bool:
    """Whether an image reference is a path below the source's folder: its content may change, and it may not."""
    return image[:5].lower() != "data:" and not _SCHEME.match(image)


def _data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise ImageError("image_data_uri", "the data URI has no comma")
    try:
        if head.lower().endswith(";base64"):
            return base64.b64decode("".join(urllib.parse.unquote(body).split()), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise ImageError("image_data_uri", "the data URI declares base64, but its data is not") from error


def _file(name: str, folder: Path, max_bytes: int) -> bytes:
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise ImageError("image_outside", "the path leads out of the source's folder of images")
        if not path.is_file():
            raise ImageError("image_missing", "the source's folder of images has no such file", True)
        size = path.stat().st_size
        if size > max_bytes:
            raise ImageError("image_too_many_bytes", f"{size:,} bytes, the limit is {max_bytes:,}")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a loop of links, no permission
        if isinstance(error, ImageError):
            raise
        raise ImageError("image_missing", "the file cannot be read", True) from error
