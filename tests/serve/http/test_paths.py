"""HEAD, OPTIONS, wrong methods, and a slash at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.guarded import Guarded, check, guarded


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded() as app:
        yield app


def test_head_is_get_without_a_body(app: Guarded) -> None:
    get, head = app.http.get("/echo"), app.http.head("/echo")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert app.http.head("/slow").status_code == 405


def test_a_wrong_method_names_all_right_ones(app: Guarded) -> None:
    for method in ("DELETE", "PATCH", "PUT"):
        response = app.http.request(method, "/echo", json={})
        assert "GET, HEAD, OPTIONS, POST" in check(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_a_wrong_method_is_told_before_anything_of_its_body(app: Guarded) -> None:
    assert check(app.http.put("/echo"), 405, "method_not_allowed")


def test_options(app: Guarded) -> None:
    response = app.http.options("/echo")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    check(app.http.options("/nothing"), 404, "unknown_path")


def test_a_slash_at_the_end(app: Guarded) -> None:
    assert app.http.get("/healthz/").json() == {"status": "ok"}
    assert app.http.post("/echo/", json={"text": "a"}).json()["text"] == "a"
    check(app.http.get("//"), 404, "unknown_path")
