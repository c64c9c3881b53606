"""The pictures of questions in a folder: found by name, or by an id with any usual ending.

Reads no picture. A name that leads out of the folder is not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comem_ray.training.rows import Bad

ENDINGS = (".jpg", ".JPEG", ".jpeg", ".JPG", ".png", ".PNG", ".webp")


class PictureFolder:
    """Looks names up in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()

    def of_names(self, names: Sequence[str]) -> str | None:
        """The path of the first of `names` that is a file of the folder."""
        for name in names:
            try:
                path = (self.folder / name).resolve()
                if path.is_relative_to(self.folder) and path.is_file():
                    return str(path)
            except (OSError, ValueError, RuntimeError):  # a name too long, a null byte, a loop of links
                continue
        return None

    def of_stems(self, stems: Sequence[str], data_id: str) -> str:
        """The path of the first of `stems` that, with one of ENDINGS, is a file. Raises Bad where none is."""
        found = self.of_names([stem + ending for stem in stems for ending in ENDINGS])
        if found is None:
            raise Bad("picture_missing", f"there is no picture {' or '.join(stems[:2])}.jpg in {self.folder}", data_id)
        return found
