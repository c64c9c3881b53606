"""Which methods a path has. Starlette itself names those of one route, and a path may have several routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import Request
from starlette.routing import Match


def allowed_methods(request: Request) -> str:
    """The methods of the request's path, as the header Allow lists them."""
    methods = set(_methods(request.app.router.routes, request))
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods | {"OPTIONS"}))


def _methods(routes: Any, request: Request) -> Iterator[str]:
    for route in routes:
        if route.matches(request.scope)[0] != Match.NONE:
            yield from getattr(route, "methods", None) or ()
