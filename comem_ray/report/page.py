"""Pages from templates. All that is put into a page is escaped, and the page forbids itself every request.

The policy in its head lets nothing be loaded. It lets one script run, report.js, which it names by its digest. So text
of a model or of the web could not run even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL.Image import Image, Resampling

from comem_ray.artifacts import write_atomic

NAME = "report.html"
_JPEG_QUALITY = 72


@dataclass(frozen=True)
class Table:
    """Cells are text or Markup. The first cell of a row is its heading; `note` is a line below the table."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_page(path: Path, template: str, context: Mapping[str, Any]) -> Path:
    """Writes the page that `template` makes of `context`; returns its path."""
    page = _environment().get_template(template).render(context)
    write_atomic(path, lambda p: p.write_text(page, encoding="utf-8"))
    return path


def data_uri(image: Image, side: int) -> str:
    """The image as a JPEG in a data: URI, its longer side at most `side` pixels."""
    small, out = image.convert("RGB"), io.BytesIO()
    small.thumbnail((side, side), Resampling.LANCZOS)
    small.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("comem_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("report.js").render()
    environment.globals["script_digest"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment
