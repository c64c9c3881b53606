"""Every error has one shape and the right status; a fault of the service shows nothing of its inside."""

from __future__ import annotations

import logging

import pytest
from support.serving import FinishedRun, Served, check_error, wait_until
from support.tiny import shard_paths

from serve.http.errors import api_error, refused
from serve.messages import Refusal


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
    assert response.headers["allow"] == "OPTIONS, POST"


def test_a_damaged_artifact_is_named_and_logged_in_one_line(served: Served, run: FinishedRun) -> None:
    shard = shard_paths(run.config.folder("items"))[-1]
    moved = shard.rename(shard.with_suffix(".away"))
    headers = {"X-Request-ID": "fault-1"}
    try:
        response = served.http.get(f"/v1/items/{run.ids[-1]}", headers=headers)
    finally:
        moved.rename(shard)
    message = check_error(response, 500, "artifact_damaged", None)
    assert shard.name in message
    assert response.headers["x-request-id"] == "fault-1"
    wait_until(lambda: "fault-1 -- artifact: " in served.log.read_text(), 10, served)
    assert "Traceback" not in served.log.read_text()
    assert served.http.get(f"/v1/items/{run.ids[-1]}").status_code == 200


def test_a_fault_of_ours_shows_nothing_and_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("ray.serve").addHandler(caplog.handler)
    try:
        error = api_error(FileNotFoundError("/secret/place"))
    finally:
        logging.getLogger("ray.serve").removeHandler(caplog.handler)
    assert (error.status_code, error.type) == (500, "internal")
    assert "secret" not in error.message
    assert "FileNotFoundError: /secret/place" in caplog.text


@pytest.mark.parametrize(("status", "type"), [(422, "prompt_too_long"), (500, "out_of_memory"), (503, "interrupted")])
def test_a_refusal_keeps_its_status(status: int, type: str) -> None:
    error = refused(Refusal(type, "a sentence", None, status))
    assert (error.status_code, error.body()["error"]["type"]) == (status, type)
