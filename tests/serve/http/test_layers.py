"""The order of the layers, and that they hold back no stream."""

from __future__ import annotations

from fastapi import FastAPI
from support.guarded import guarded

from comem_ray.config import ApiConfig
from serve.http.keys import Keys
from serve.http.layers import add_layers


def test_the_layers_hold_back_no_stream() -> None:
    with guarded() as app, app.http.stream("GET", "/stream") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: 0"  # long before the last one, 5 s later


def test_their_order() -> None:
    small = FastAPI()
    add_layers(small, ApiConfig(), Keys({}))
    names = [layer.cls.__name__ for layer in small.user_middleware]  # type: ignore[attr-defined]
    assert names[:3] == ["SecurityHeaders", "Lingering", "Guard"]
    assert names.index("Hosts") < names.index("Access") < names.index("RequestRate") < names.index("BodyArrival")
    assert names[-1] == "OpenRequests"
