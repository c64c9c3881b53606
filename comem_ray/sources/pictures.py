"""The bytes of a row's picture: carried by the row, in a data URI, in a file below the source's folder, or by URL.

A path that leads out of the folder (.., an absolute path, a symbolic link) is refused. Decodes nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from pathlib import Path

from comem_ray.fetch import Fetcher
from comem_ray.images import PictureError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def picture_bytes(picture: str | bytes, folder: Path, fetcher: Fetcher, max_bytes: int) -> bytes:
    """Loads what `picture` of a Row refers to. Raises PictureError (FetchError where it is a URL)."""
    if isinstance(picture, bytes):
        return picture
    if picture[:5].lower() == "data:":
        return _data_uri(picture)
    if _SCHEME.match(picture):
        return fetcher.fetch(picture)
    return _file(picture, folder, max_bytes)


def _data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise PictureError("picture_data_uri", "a data URI without a comma")
    try:
        if head.lower().endswith(";base64"):
            return base64.b64decode("".join(urllib.parse.unquote(body).split()), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise PictureError("picture_data_uri", "the data URI is not base64 as it says") from error


def _file(name: str, folder: Path, max_bytes: int) -> bytes:
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise PictureError("picture_outside", "the path leads out of the source's folder of pictures")
        if not path.is_file():
            raise PictureError("picture_missing", "there is no such file in the source's folder of pictures", True)
        size = path.stat().st_size
        if size > max_bytes:
            raise PictureError("picture_too_many_bytes", f"{size:,} bytes, the limit is {max_bytes:,}")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a loop of links, no permission
        if isinstance(error, PictureError):
            raise
        raise PictureError("picture_missing", "the file cannot be read", True) from error
