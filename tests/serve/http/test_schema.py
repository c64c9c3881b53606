"""Requests that schemathesis makes of /openapi.json: none is a fault of ours, and each response is a documented one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from support.local_service import LocalService, on_the_cpu
from support.serving import FinishedRun

from comem_ray.config import Config
from serve.http.api import build_api
from serve.http.keys import Keys

EXAMPLES = int(os.environ.get("COMEM_SCHEMA_EXAMPLES", "60"))  # requests per path and method
CONFIG = Path(__file__).parents[2] / "support/schemathesis.toml"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "use_after_free",
]


async def _serve(config: Config, listener: socket.socket, started: list[uvicorn.Server]) -> None:
    service = LocalService(config)
    try:
        app = build_api(service.flow, config, Keys({}))
        started.append(uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical")))
        await started[0].serve(sockets=[listener])
    finally:
        service.close()


@pytest.fixture(scope="module")
def url(run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service, on a port of this process."""
    root = tmp_path_factory.mktemp("schema") / "run"
    shutil.copytree(run.config.folder("items").parent, root)
    config = run.config.model_copy(update={"root": str(root)})
    started: list[uvicorn.Server] = []
    with socket.socket() as listener, pytest.MonkeyPatch.context() as patch:
        on_the_cpu(patch)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=lambda: asyncio.run(_serve(config, listener, started)), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        started[0].should_exit = started[0].force_exit = True
        thread.join(10)


@pytest.mark.slow
def test_every_request_is_answered_as_documented(url: str, tmp_path: Path) -> None:
    schema = httpx.get(f"{url}/openapi.json", timeout=60).json()
    # A request that names another model ends there: a 404.
    schema["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] = ["tiny", "other"]
    (tmp_path / "openapi.json").write_text(json.dumps(schema))
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"]
    options = ["--url", url, f"--max-examples={EXAMPLES}", "--seed=1", "--no-color", "--checks", ",".join(CHECKS)]
    result = subprocess.run(
        [*command, str(tmp_path / "openapi.json"), *options],
        capture_output=True,
        text=True,
        timeout=3_000,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2_000:]
