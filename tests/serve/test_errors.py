"""Every error has one shape and the right status; a fault of the service shows nothing of its inside."""

from __future__ import annotations

import pytest
from support.serving import UNITS, FinishedRun, Served, check_error, wait_until


@pytest.mark.parametrize(
    "body",
    [b"{", b"question", b'{"question": "\xff"}', b"[" * 100_000, b'{"question": "a", "top_k": ' + b"9" * 5_000 + b"}"],
)
def test_not_json(served: Served, body: bytes) -> None:
    response = served.http.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 400, "invalid_json", None)


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'"x"'])
def test_no_object(served: Served, body: bytes) -> None:
    response = served.http.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"]["type"] in ("missing_body", "invalid_body")


def test_unknown_paths_and_methods(served: Served) -> None:
    check_error(served.http.get("/v2/answer"), 404, "unknown_path", None)
    check_error(served.http.post("/v1/nothing", json={}), 404, "unknown_path", None)
    response = served.http.get("/v1/answer")
    assert "POST" in check_error(response, 405, "method_not_allowed", None)
    assert response.headers["allow"] == "POST"


def test_a_fault_of_ours_shows_nothing_and_is_in_the_log(served: Served, run: FinishedRun) -> None:
    shard = run.config.folder("items") / f"{UNITS[1]}.parquet"
    moved = shard.rename(shard.with_suffix(".away"))
    headers = {"X-Request-ID": "fault-1"}
    try:
        response = served.http.get(f"/v1/items/{run.ids[-1]}", headers=headers)
    finally:
        moved.rename(shard)
    message = check_error(response, 500, "internal", None)
    assert shard.name not in message
    assert response.headers["x-request-id"] == "fault-1"
    wait_until(lambda: "fault-1 -- request failed" in served.log.read_text(), 10, served)
    wait_until(lambda: "FileNotFoundError" in served.log.read_text(), 10, served)
    assert served.http.get(f"/v1/items/{run.ids[-1]}").status_code == 200
