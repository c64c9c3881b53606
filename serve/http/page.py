"""The page at `/` and its files, and the interactive reference at `/docs`: static files that name no other host.

The page speaks to this API like any other client. Swagger UI's files come from the package fastapi-offline: nothing
is fetched from the internet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response

FOLDER = Path(__file__).parents[1] / "page"
PAGES = {"index.html": "/", "docs.html": "/docs"}
SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-cache",  # kept, but asked for again: the ETag makes that a 304
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class StaticFile:
    """A file in memory, with the headers it is answered with."""

    body: bytes
    headers: Mapping[str, str]

    def response(self, known: str | None) -> Response:
        """The file, or 304 where the client's If-None-Match (`known`) has its ETag."""
        tags = [tag.strip().removeprefix("W/") for tag in (known or "").split(",")]
        if self.headers["ETag"] in tags or "*" in tags:
            headers = {name: value for name, value in self.headers.items() if name != "Content-Type"}
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=dict(self.headers))


def page_routes(app: FastAPI) -> None:
    """Adds `/`, `/page/...`, `/docs` and `/docs/...`. The files are read now, once."""
    for path, file in _files():
        _add(app, path, file)


def _add(app: FastAPI, path: str, file: StaticFile) -> None:
    async def static(request: Request) -> Response:
        return file.response(request.headers.get("if-none-match"))

    app.add_api_route(path, static, methods=["GET", "HEAD"], include_in_schema=False)


def _files() -> Iterator[tuple[str, StaticFile]]:
    """Every path with its file."""
    for file in sorted(FOLDER.iterdir()):
        yield PAGES.get(file.name, f"/page/{file.name}"), _read(file)
    installed = distribution("fastapi-offline")
    for name in SWAGGER_UI:
        yield f"/docs/{name}", _read(Path(str(installed.locate_file(f"fastapi_offline/static/{name}"))))


def _read(file: Path) -> StaticFile:
    body = file.read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:32]
    return StaticFile(body, {**_HEADERS, "Content-Type": _MEDIA_TYPES[file.suffix], "ETag": f'"{digest}"'})
