"""What does serving cost? /v1/answer over HTTP against the same call directly on the library, in one run.

    python benchmarks/serve_overhead.py --config configs/demo.yaml [--requests 200] [--mode memory] [--new-tokens 8]

The model's own time varies more than the time that serving adds: measure on a quiet machine. `--ray-env` serves with
the settings of serve/ray.env; `OMP_WAIT_POLICY=PASSIVE` before the command gives this process the replicas' policy.

Needs a finished run (`python -m jobs.quickstart --config ...`). Serves it as users do (`serve run serve/config.yaml`,
on a Ray of its own), and loads the library's parts into this process, with as many threads as a replica has. The two
answer in turns, the same question with the same image, one request at a time. The cost of serving is the difference of
their medians. Then 1, 4 and 8 simultaneous clients use the served one.

"Direct" does what the API does and no more: decode the image, retrieve items, read their texts, read their memory from
the store, answer the question.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import torch
import yaml

from comem_ray.config import Config, load_config
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import ItemStore
from comem_ray.memory_store import MemoryStore
from comem_ray.model.adapter import encoder_fingerprint
from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.retrieval.retriever import Query, Retriever

ROOT = Path(__file__).parents[1]
QUESTION = "Which country is this, and what is its capital?"


class Direct:
    """The library's parts in this process."""

    def __init__(self, config: Config):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config, self.retriever, self.reasoner = config, Retriever(config, device), Reasoner(config, device)
        self.items = ItemStore(config.folder("items"))
        self.store = MemoryStore(config.folder("memory"), encoder_fingerprint(config))

    def answer(self, image: str, mode: Any, new_tokens: int) -> tuple[str, list[str]]:
        """The answer, and the texts of its sources."""
        limit = self.config.api.max_image_pixels
        image = open_image(base64.b64decode(image), limit)
        if mode == "none":
            return self.reasoner.answer([Prompt(QUESTION, image, max_new_tokens=new_tokens)])[0].text, []
        settings = self.config.retrieval
        hits = self.retriever.retrieve([Query(image, None)], settings.top_k, "image", settings.language)[0]
        items = self.items.get([h.item_id for h in hits], image=mode == "rag")
        knowledge: dict[str, Any] = {}
        if mode == "rag":
            knowledge["items"] = [(i.text, open_image(i.image or b"", limit)) for i in items]
        else:
            knowledge["memory"] = self.store.get([h.item_id for h in hits])
        question = Prompt(QUESTION, image, mode, max_new_tokens=new_tokens, **knowledge)
        return self.reasoner.answer([question])[0].text, [i.text for i in items]


@dataclass
class Client:
    """The served application."""

    http: httpx.Client
    mode: str
    new_tokens: int

    def answer(self, image: str) -> Any:
        body = {"question": QUESTION, "image": image, "mode": self.mode, "max_new_tokens": self.new_tokens}
        response = self.http.post("/v1/answer", json=body)
        response.raise_for_status()
        return response.json()


@contextmanager
def serving(path: str, overrides: list[str], ray_env: bool = False) -> Iterator[str]:
    """`serve run` of serve/config.yaml with this configuration; yields the URL once it is ready."""
    lines = (ROOT / "serve/ray.env").read_text().splitlines() if ray_env else []
    environment = {**os.environ, **dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = yaml.safe_load((ROOT / "serve/config.yaml").read_text())
    settings["http_options"]["port"] = port
    settings["applications"][0]["args"] = {"config": str(Path(path).absolute()), "overrides": overrides}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "serve.yaml"
        file.write_text(yaml.safe_dump(settings))
        serve = Path(sys.executable).parent / "serve"
        command = [str(serve), "run", str(file), "--working-dir", str(ROOT), "--address", "local"]
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _wait(f"http://127.0.0.1:{port}", process, Path(folder) / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    sys.exit(f"the application did not come up:\n{log.read_text()[-3_000:]}")


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def quantiles(values: list[float]) -> tuple[float, float]:
    """p50 and p95."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.95)]


def compare(direct: Direct, client: Client, images: list[str], requests: int, warm_up: int = 5) -> None:
    """Both in turns, over the same images. Which goes first changes each time."""
    times: dict[str, list[float]] = {"direct": [], "served": []}
    stages: dict[str, list[float]] = {}
    for number, image in zip(range(-warm_up, requests), itertools.cycle(images), strict=False):
        calls: dict[str, Callable[[], Any]] = {
            "direct": lambda image=image: direct.answer(image, client.mode, client.new_tokens),
            "served": lambda image=image: client.answer(image),
        }
        for name in sorted(calls, reverse=number % 2 == 0):
            ms = timed(calls[name])
            if number >= 0:
                times[name].append(ms)
        if number >= 0 and number % 5 == 0:
            for stage, ms in client.answer(image)["timings_ms"].items():
                stages.setdefault(stage, []).append(ms)
    for name, values in times.items():
        p50, p95 = quantiles(values)
        print(f"{name:8} p50 {p50:8.1f} ms   p95 {p95:8.1f} ms   ({requests} requests)")
    pairs = [s - d for s, d in zip(times["served"], times["direct"], strict=True)]
    added = quantiles(times["served"])[0] - quantiles(times["direct"])[0]
    print(f"added    p50 {added:8.1f} ms   (median of the differences of the pairs: {statistics.median(pairs):.1f} ms)")
    print("stages of the served (p50): " + ", ".join(f"{k} {statistics.median(v):.1f}" for k, v in stages.items()))


def throughput(url: str, client: Client, images: list[str], users: int, requests: int) -> None:
    """Requests per second with `users` simultaneous clients."""

    def user(number: int) -> list[float]:
        with httpx.Client(base_url=url, timeout=300) as http:
            own = Client(http, client.mode, client.new_tokens)
            share = range(requests // users)
            return [timed(lambda i=i: own.answer(images[(number + i) % len(images)])) for i in share]  # type: ignore[misc]

    start = time.perf_counter()
    with ThreadPoolExecutor(users) as threads:
        times = [t for user_times in threads.map(user, range(users)) for t in user_times]
    seconds = time.perf_counter() - start
    p50, p95 = quantiles(times)
    print(f"{users} at once: {len(times) / seconds:6.1f} answers/s   p50 {p50:8.1f} ms   p95 {p95:8.1f} ms")


def question_images(config: Config, count: int) -> list[str]:
    """Images of items of the run, as base64."""
    store = ItemStore(config.folder("items"))
    ids = random.Random(0).sample(store.ids, min(count, len(store)))
    return [base64.b64encode(i.image or b"").decode() for i in store.get(ids)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--mode", choices=["none", "rag", "memory"], default="memory")
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--ray-env", action="store_true", help="serve with the settings of serve/ray.env")
    args = parser.parse_args()
    config = load_config(args.config, args.overrides)
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))  # as serve/config.yaml gives its replicas
    torch.set_num_threads(threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.processor() or 'CPU'}"
    names = ("ray", "torch", "transformers", "fastapi", "uvicorn")
    print(f"{platform.platform()}, {os.cpu_count()} cores, {device}; Python {platform.python_version()}")
    print(", ".join(f"{n} {version(n)}" for n in names) + f"; {threads} threads; load {os.getloadavg()[0]:.1f}")
    print(f"{config.name}, mode {args.mode}, top {config.retrieval.top_k}, {args.new_tokens} new tokens")
    print(f"serve/ray.env: {args.ray_env}")
    encoded, direct = question_images(config, 32), Direct(config)
    with serving(args.config, args.overrides, args.ray_env) as url, httpx.Client(base_url=url, timeout=300) as http:
        client = Client(http, args.mode, args.new_tokens)
        want = direct.answer(encoded[0], args.mode, args.new_tokens)
        body = client.answer(encoded[0])
        assert (body["answer"], [s["text"] for s in body["sources"]]) == want, (body, want)
        compare(direct, client, encoded, args.requests)
        for users in (1, 4, 8):
            throughput(url, client, encoded, users, max(users * 4, args.requests // 2))


if __name__ == "__main__":
    main()
