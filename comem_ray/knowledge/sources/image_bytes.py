"""The bytes of a row's image: from the row itself, a data URI, a file below the source's folder, or a URL.

A path that leads out of the folder (.., an absolute path, a symbolic link) is refused. So is every address but http(s),
each with what would be right in its place. A file name may be composed (NFC) in the row and decomposed (NFD) on the
disk, or the reverse: both name the same file. Decodes no image.
"""

from __future__ import annotations

import re
from pathlib import Path

from comem_ray.home import as_on_disk
from comem_ray.knowledge.base64_text import decode_data_uri, is_data_uri
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.images import ImageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_OBJECT_STORES = {
    *(
        "s3",
        "s3a",
        "s3n",
        "gs",
        "gcs",
        "az",
        "adl",
        "abfs",
        "abfss",
        "wasb",
        "wasbs",
        "r2",
        "oss",
        "cos",
        "swift",
        "b2",
    ),
    *("hf", "hdfs", "webhdfs", "viewfs", "dbfs"),
}
_OTHER_SCHEMES = {"ftp", "ftps", "sftp", "ssh", "smb", "nfs", "blob", "about", "cid", "javascript", "mailto", "urn"}


def image_bytes(image: str | bytes, folder: Path, fetcher: Fetcher, max_bytes: int) -> bytes:
    """The bytes that `image` of a Row refers to. Raises ImageError, FetchError for a URL."""
    if isinstance(image, bytes):
        return image
    if is_data_uri(image):
        try:
            return decode_data_uri(image)
        except ValueError as error:
            raise ImageError("image_data_uri", str(error)) from error
    if image[:8].lower().startswith(("http://", "https://")):
        return fetcher.fetch(image)
    if fault := _scheme_fault(image):
        raise fault
    return _file(image, folder, max_bytes)


def is_local_file(image: str) -> bool:
    """Whether an image reference is a path below the source's folder: its content may change, and it may not."""
    web = image[:8].lower().startswith(("http://", "https://"))
    return not (web or is_data_uri(image) or _scheme_fault(image))


def _scheme_fault(image: str) -> ImageError | None:
    """What is wrong with an address that is neither http(s) nor a path; None for a path."""
    if image.startswith("//"):
        return ImageError("fetch_scheme", "the address starts with // and names no scheme: write https: before it")
    match = _SCHEME.match(image)
    if match is None or len(match[1]) == 1:  # a path, or a drive of Windows
        return None
    scheme = match[1].lower()
    if scheme == "file":
        detail = "this is a file URL: write the path alone, from the source's folder of images (sources[].images) on"
        # Wikipedia's own names of images start with "File:".
        return ImageError("fetch_scheme", detail) if image[5:6] == "/" else None
    if scheme in ("http", "https"):
        return ImageError("fetch_scheme", f"// is missing behind {scheme}: want {scheme}://host/path")
    if scheme in _OBJECT_STORES and match[2]:
        return ImageError(
            "fetch_scheme",
            f"{scheme}:// names an object store, which is not read: give an http(s) address, or copy the images into a "
            "folder and write their paths",
        )
    if match[2] or scheme in _OTHER_SCHEMES:
        return ImageError("fetch_scheme", f"the scheme is {scheme}, want http or https, or a path without a scheme")
    return None


def _file(name: str, folder: Path, max_bytes: int) -> bytes:
    if _WINDOWS.match(name):
        raise ImageError(
            "image_outside", "this is a path of Windows: write it from the source's folder of images on, with /"
        )
    try:
        root = folder.resolve()
        path = as_on_disk(root / name).resolve()
        if not path.is_relative_to(root):
            raise ImageError(
                "image_outside",
                "the path leads out of the source's folder of images: write it from that folder on, or set "
                "sources[].images to a folder above it",
            )
        if not path.is_file():
            raise ImageError("image_missing", _missing(name), True)
        size = path.stat().st_size
        if size > max_bytes:
            raise ImageError("image_too_many_bytes", f"{size:,} bytes, the limit is {max_bytes:,}")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a loop of links, no permission
        if isinstance(error, ImageError):
            raise
        raise ImageError("image_missing", "the file cannot be read", True) from error


def _missing(name: str) -> str:
    hint = ""
    if name.lower().startswith("www."):
        hint = ": an address wants https:// before it"
    elif "\\" in name:
        hint = ": write / between folders"
    return f"the source's folder of images has no such file{hint}"
