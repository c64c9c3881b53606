"""Every error has one shape and the right status; a fault of the service shows nothing of its inside."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import pytest
from support.local_service import LocalService, on_the_cpu
from support.serving import FinishedRun, Served, check_error
from support.tiny import shard_paths

from comem_ray.artifacts import ArtifactError
from serve.http.errors import ApiError, api_error, refused
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


def test_a_damaged_artifact_is_named_and_logged_in_one_line(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_the_cpu(monkeypatch)
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    config = run.config.model_copy(update={"root": str(tmp_path / "run")})
    shard = shard_paths(config.folder("items"))[-1]

    async def main() -> ApiError:
        service = LocalService(config)
        shard.rename(shard.with_suffix(".away"))
        with pytest.raises(ArtifactError) as raised:
            await service.flow.item(run.ids[-1])
        service.close()
        return api_error(raised.value)

    logging.getLogger("ray.serve").addHandler(caplog.handler)
    try:
        error = asyncio.run(main())
    finally:
        logging.getLogger("ray.serve").removeHandler(caplog.handler)
    assert (error.status_code, error.type) == (500, "artifact_damaged")
    assert shard.name in error.message
    assert "artifact: " in caplog.text
    assert "Traceback" not in caplog.text


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
