"""An application of a few lines on Ray's real proxy: for what concerns the proxy, its ports and its metrics."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

ROOT = Path(__file__).parents[2]
SOURCE = """
import asyncio, os
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from ray import serve
from serve.local_ports import listen_locally
from serve.metrics import BatchMetrics, IngressMetrics, KnowledgeMetrics, ReasonerMetrics

api = FastAPI()

@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(api)
class Small:
    def __init__(self):
        listen_locally()

    @api.get("/pid")
    async def pid(self):
        return os.getpid()

    @api.get("/nice")
    async def nice(self):
        return os.nice(0)

    @api.get("/count")
    async def count(self):
        m = IngressMetrics()
        m.finish_request("/count", 200, "memory")
        m.set_open_requests(3)
        m.observe_stages({"retrieve": 5.0, "total": 30.0}, "memory")
        m.observe_first_token(0.1, "memory")
        m.add_usage({"prompt_tokens": 40, "completion_tokens": 2, "memory_vectors": 24}, "memory")
        m.add_memory_items("store", 3)
        m.count_error("overloaded")
        m.reject("max_waiting")
        ReasonerMetrics().observe_step(2, 1, 200)
        ReasonerMetrics().end_answer("stop")
        BatchMetrics().observe_batch(2)
        KnowledgeMetrics().observe_write(0.01, {"added": 1})
        KnowledgeMetrics().set_counts(1, 0, 1)

    @api.get("/die")
    async def die(self):
        os._exit(1)

    @api.get("/stream")
    async def stream(self):
        async def pieces():
            yield "half"
            await asyncio.sleep(0.3)
            os._exit(1)
        return StreamingResponse(pieces())

graph = Small.bind()
"""


@dataclass
class Small:
    """The running application."""

    http: httpx.Client
    process: psutil.Process
    log: Path

    def listening(self) -> dict[str, list[int]]:
        """Ports that the processes of this Ray listen on, by address."""
        ports: dict[str, list[int]] = {}
        for process in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.Error):
                for c in process.net_connections("tcp"):
                    if c.status == psutil.CONN_LISTEN:
                        ports.setdefault(c.laddr.ip, []).append(c.laddr.port)
        return ports

    def metrics(self) -> str:
        """What Prometheus would read: all that the ports of this Ray show at /metrics."""
        texts = []
        for port in self.listening()["127.0.0.1"]:
            with suppress(httpx.HTTPError):
                texts.append(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=2, trust_env=False).text)
        return "\n".join(texts)

    def wait(self, seconds: float = 120) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while not self._answers():
            assert self.process.is_running(), self.log.read_text()[-5_000:]
            assert time.monotonic() < end, self.log.read_text()[-5_000:]
            time.sleep(0.3)

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.http.get("/pid").status_code == 200
        return False


def environment() -> dict[str, str]:
    """serve/ray.env and serve/one_machine.env over this process's own; the code is this checkout's."""
    files = [(ROOT / "serve" / name).read_text() for name in ("ray.env", "one_machine.env")]
    lines = [line for text in files for line in text.splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    return {**os.environ, **settings, "PYTHONPATH": str(ROOT), "COMEM_HEADER_TIMEOUT_S": "2"}


@contextmanager
def small_app(folder: Path) -> Iterator[Small]:
    """The application on a Ray and a port of its own, answering; its files are in `folder`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    code = folder / "code"
    code.mkdir()
    (code / "small.py").write_text(SOURCE)
    (code / "serve").symlink_to(ROOT / "serve")
    application = {"name": "small", "route_prefix": "/", "import_path": "small:graph"}
    settings = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}
    (folder / "serve.yaml").write_text(yaml.safe_dump(settings))
    serve = str(Path(sys.executable).parent / "serve")
    command = [serve, "run", str(folder / "serve.yaml"), "--working-dir", str(code), "--address", "local"]
    with open(folder / "serve.log", "wb") as f:
        process = subprocess.Popen(
            command, cwd=code, env=environment(), stdout=f, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            small = Small(http, psutil.Process(process.pid), folder / "serve.log")
            small.wait()
            yield small
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
