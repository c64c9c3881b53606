"""The layers in front of the API, in their order. Each is a pure ASGI layer: none holds back a stream.

The outer ones refuse what the inner ones would spend memory or time on.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from comem_ray.config import ApiConfig
from serve.http.access import Access, Hosts
from serve.http.arrival import BodyArrival
from serve.http.cors import Cors
from serve.http.errors import api_error
from serve.http.guard import Guard
from serve.http.headers import SecurityHeaders
from serve.http.keys import Keys
from serve.http.lingering import Lingering
from serve.http.paths import Paths, allowed_methods
from serve.http.rates import OpenRequests, RequestRate


def add_layers(app: FastAPI, limits: ApiConfig, keys: Keys) -> None:
    """Adds all of them, and the errors of the app's own handlers. Where keys are wanted, any Host header will do."""
    for error in (HTTPException, RequestValidationError):
        app.add_exception_handler(error, _on_error)
    app.add_middleware(OpenRequests, limits=limits)  # innermost: the first one added
    app.add_middleware(BodyArrival, limits=limits)
    app.add_middleware(RequestRate, per_minute=limits.requests_per_minute)
    app.add_middleware(Access, keys=keys)
    app.add_middleware(Cors, origins=limits.cors_origins)
    app.add_middleware(Hosts, names=["*"] if keys else limits.allowed_hosts)
    app.add_middleware(Paths)
    app.add_middleware(Guard)
    app.add_middleware(Lingering)
    app.add_middleware(SecurityHeaders)  # outermost: on the errors of all others too


async def _on_error(request: Request, error: Exception) -> Response:
    # Of a method that a path lacks only OPTIONS comes here: BodyArrival refuses the others.
    if isinstance(error, HTTPException) and error.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allowed_methods(request.scope)})
    return api_error(error).response()
