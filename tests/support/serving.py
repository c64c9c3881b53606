"""A tiny run made by the real stages, the application that serves it, and the library to compare it with."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import open_clip
import psutil
import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import save_file
from support.tiny import item_row

from comem_ray.artifacts import StageFolder, load_manifest, write_json, write_parquet
from comem_ray.client import Client
from comem_ray.config import Config
from comem_ray.knowledge.schema import ITEM_SCHEMA
from comem_ray.memory_store import MemoryStore, write_memory
from comem_ray.model.adapter import encoder_fingerprint
from jobs import build_index, embed_items, encode_memory, item_shards

ROOT = Path(__file__).parents[2]
ITEMS = 40
UNITS = ["part-0000-000000", "part-0000-000001"]
NOT_STORED = 5  # number of the item whose memory is missing in the store
LIMITS = {
    "max_body_bytes": 8_000_000,
    "max_question_chars": 500,
    "max_top_k": 20,
    "max_new_tokens": 400,
    "max_batch": 4,
    "max_waiting": 12,
}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def row(i: int) -> dict[str, Any]:
    """Item number `i`. A browser cannot open the source's URL of some items."""
    urls = {0: None, 1: "data:image/png;base64,iVBORw0KGgo=", 2: "images/2.png"}
    return {**item_row(i), "image_url": urls.get(i, f"https://example.org/image/{i}.png")}


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_of(i: int) -> str:
    """The image of item number `i`, to which that item is the nearest."""
    return as_base64(row(i)["image"])


def check_error(response: httpx.Response, status: int, type: str, field: str | None) -> str:
    """Asserts status and shape of an error; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert response.json().keys() == {"error"}
    assert error.keys() == {"type", "message", "field"}
    assert (error["type"], error["field"]) == (type, field)
    assert "Traceback" not in error["message"]
    assert len(error["message"]) > 10
    return str(error["message"])


@dataclass
class FinishedRun:
    """A knowledge base that all stages have made; `ids` are its items'."""

    config: Config
    path: Path  # of its configuration
    ids: list[str]


def write_clip(folder: Path) -> dict[str, str]:
    """A tiny CLIP of random weights; returns the fields of section `clip`."""
    torch.manual_seed(1)
    write_json(folder / "tiny.json", CLIP)
    weights = {k: v.contiguous() for k, v in open_clip.CLIP(**CLIP).state_dict().items()}
    save_file(weights, folder / "tiny.safetensors")
    return {"model": str(folder / "tiny.json"), "pretrained": str(folder / "tiny.safetensors")}


def make_run(config: Config, home: Path) -> FinishedRun:
    """Works through the stages over ITEMS items, then takes the memory of NOT_STORED out of the store."""
    path = home / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    ids = _write_items(config.folder("items"))
    run_stages(config)
    store = MemoryStore(config.folder("memory"), encoder_fingerprint(config))
    kept = [item_id for item_id in ids[:-1] if item_id != ids[NOT_STORED]]
    _write_memory_of(config, kept, store.get(kept))
    return FinishedRun(config, path, ids)


def run_stages(config: Config) -> None:
    """Embeddings, index and memory of the items that are there."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (item_shards, build_index):
            patch.setattr(module, "run_units", _run_units_here)
        for stage in (embed_items, build_index, encode_memory):
            stage.run(config)


def _write_memory_of(config: Config, item_ids: list[str], memory: torch.Tensor) -> None:
    """The store of a run again, with the memory of `item_ids` alone."""
    folder = config.folder("memory")
    manifest = load_manifest(folder, encode_memory.STAGE)
    stage = StageFolder(folder, manifest.stage, manifest.identity)
    name = f"{UNITS[0]}.safetensors"
    write_memory(folder / name, item_ids, [bytes(16)] * len(item_ids), memory)
    stage.commit(UNITS[0], manifest.records[0].inputs, {name: len(item_ids)}, {"items": len(item_ids)})
    stage.close([UNITS[0]], manifest.extra)


def _run_units_here(units: list[dict[str, Any]], worker: type, arguments: tuple[Any, ...], *_: Any) -> int:
    """The workers of a stage without Ray, whose start would take longer than all else."""
    actor = worker(*arguments)
    for unit in units:
        actor({name: np.array([value]) for name, value in unit.items()})
    return len(units)


def _write_items(folder: Path) -> list[str]:
    """Two shards: all items but the last, and the last. Returns their ids."""
    stage = StageFolder(folder, "ingest", {"tiny": True})
    rows = [row(i) for i in range(ITEMS)]
    for unit, part in zip(UNITS, (rows[:-1], rows[-1:]), strict=True):
        write_parquet(folder / f"{unit}.parquet", pa.Table.from_pylist(part, ITEM_SCHEMA))
        stage.commit(unit, "", {f"{unit}.parquet": len(part)}, {"rows": len(part), "items": len(part)})
    stage.close(UNITS)
    return [r["item_id"] for r in rows]


@dataclass
class Served:
    """The running application; `http` speaks to it where a test needs more than `comem_ray.client` shows."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    http: httpx.Client

    def ask(self, question: str, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/answer", json={"question": question, **fields})

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Processes of a deployment's replicas: below our own `serve run`, so no other cluster's."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in children if f":{deployment}" in " ".join(_command(p))]

    def is_ready(self) -> bool:
        return Client(self.url, timeout_s=10).ready()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def serve_process(run: FinishedRun, folder: Path, *overrides: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`serve run` with serve/config.yaml and serve/ray.env, and its URL; its output is in `folder`/serve.log.

    Arguments, port and periods are the test's.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = yaml.safe_load((ROOT / "serve/config.yaml").read_text())
    settings["http_options"]["port"] = port
    settings["applications"][0]["args"] = {"config": str(run.path), "overrides": list(overrides)}
    for deployment in settings["applications"][0]["deployments"]:
        deployment["health_check_period_s"] = 1
    (folder / "serve.yaml").write_text(yaml.safe_dump(settings))
    serve = Path(sys.executable).parent / "serve"
    command = [str(serve), "run", str(folder / "serve.yaml"), "--working-dir", str(ROOT), "--address", "local"]
    lines = (ROOT / "serve/ray.env").read_text().splitlines()
    environment = {**os.environ, **dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))}
    with open(folder / "serve.log", "wb") as f:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=f, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def serving(run: FinishedRun, folder: Path) -> Iterator[Served]:
    """The application of a run, ready."""
    with serve_process(run, folder) as (process, url), httpx.Client(base_url=url, timeout=60) as http:
        served = Served(url, process, folder / "serve.log", http)
        wait_until(served.is_ready, 400, served)
        yield served


def wait_until(condition: Any, seconds: float, served: Served) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert served.process.poll() is None, served.log.read_text()[-5_000:]
        assert time.monotonic() < end, f"waited {seconds} s: {served.log.read_text()[-5_000:]}"
        time.sleep(0.3)
