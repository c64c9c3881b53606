"""How does the service behave under load? Throughput and times per mode and number of users, beside the direct call.

    python -m benchmarks.serve_load --config configs/demo.yaml [--requests 96] [--users 1,8,32]

Needs a finished run (`python -m jobs.quickstart --config ...`) and a quiet machine. One run measures:

- the library's own batched call in this process (`Pipeline.answer_batch`, as many at once as `api.max_batch`);
- answers per second, p50 and p99 of 1, 8, 32 users at once, for none, rag and memory;
- a 2-token answer beside a 200-token one, against its time alone; the same after a user left a 200-token answer;
- seconds from `POST /v1/items` to its answer (p50, p95), and that the next question finds the item;
- a burst of ten times what may wait: what is answered, what is refused, with which Retry-After; time to recover;
- 300 connections that send half a body and wait: what others notice.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import httpx
import torch
from PIL import Image

from benchmarks.serve_overhead import question_images, serving
from comem_ray.answers import Question
from comem_ray.config import Config, load_config
from comem_ray.pipeline import Pipeline

QUESTION = "Which country is this, and what is its capital?"


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


class Service:
    """Asks the service at `url`; counts statuses."""

    def __init__(self, url: str, images: list[str], new_tokens: int):
        self.url, self.images, self.new_tokens = url, images, new_tokens

    def ask(self, http: httpx.Client, n: int, mode: str, tokens: int | None = None) -> httpx.Response:
        image = self.images[n % len(self.images)]
        body = {"question": QUESTION, "image": image, "mode": mode, "max_new_tokens": tokens or self.new_tokens}
        return http.post("/v1/answer", json=body)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=300)

    def load(self, users: int, requests: int, mode: str) -> tuple[float, list[float]]:
        """Answers per second, and the seconds of each, of `users` who ask one question after the other."""
        share = max(1, requests // users)

        def user(number: int) -> list[float]:
            with self.client() as http:
                return [timed(lambda i=i: answered(self.ask(http, number * share + i, mode))) for i in range(share)]  # type: ignore[misc]

        start = time.perf_counter()
        with ThreadPoolExecutor(users) as threads:
            times = [t for of_user in threads.map(user, range(users)) for t in of_user]
        return len(times) / (time.perf_counter() - start), times


def answered(response: httpx.Response) -> None:
    response.raise_for_status()


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def direct(config: Config, images: list[str], mode: Any, requests: int, tokens: int) -> float:
    """Answers per second of the library's batched call."""
    pipeline = Pipeline(config)
    batch = config.api.max_batch
    questions = [
        Question(QUESTION, base64.b64decode(images[n % len(images)]), mode, max_new_tokens=tokens)
        for n in range(max(batch, requests // batch * batch))
    ]
    pipeline.answer_batch(questions[:batch])
    start = time.perf_counter()
    for n in range(0, len(questions), batch):
        pipeline.answer_batch(questions[n : n + batch])
    return len(questions) / (time.perf_counter() - start)


def short_beside_long(service: Service) -> None:
    """A short answer alone, beside a long one, and after a user has left a long one."""
    with service.client() as http:
        alone = [timed(lambda n=n: answered(service.ask(http, n, "none", 2))) for n in range(10)]  # type: ignore[misc]
        beside, after = [], []
        for n in range(5):
            long = threading.Thread(target=lambda n=n: _quietly(service, n, 200))  # type: ignore[misc]
            long.start()
            time.sleep(0.3)
            beside.append(timed(lambda n=n: answered(service.ask(http, n, "none", 2))))  # type: ignore[misc]
            long.join()
            with service.client() as leaver:
                body = {"question": QUESTION, "mode": "none", "max_new_tokens": 200, "stream": True}
                with leaver.stream("POST", "/v1/answer", json=body) as response:
                    next(response.iter_text())
                    time.sleep(0.4)
            after.append(timed(lambda n=n: answered(service.ask(http, n, "none", 2))))  # type: ignore[misc]
    base = statistics.median(alone)
    for name, values in (("alone", alone), ("beside a 200-token answer", beside), ("after one was left", after)):
        ms = statistics.median(values) * 1e3
        print(f"2 tokens {name:26} p50 {ms:8.1f} ms   {ms / 1e3 / base:4.1f} x   worst {max(values) * 1e3:8.1f} ms")


def _quietly(service: Service, n: int, tokens: int) -> None:
    with service.client() as http:
        service.ask(http, n, "none", tokens)


def added_items(service: Service, count: int) -> None:
    """Seconds of an addition; the next question must find the item."""
    rng, times, found = random.Random(0), [], 0
    with service.client() as http:
        for n in range(count):
            image = Image.new("RGB", (200, 150), tuple(rng.randrange(256) for _ in range(3)))
            image.paste(tuple(rng.randrange(256) for _ in range(3)), (20, 20, 20 + n * 5 % 150, 100))
            data = io.BytesIO()
            image.save(data, "PNG")
            encoded = base64.b64encode(data.getvalue()).decode()
            item = {"image": encoded, "title": f"Benchmark {n}", "text": f"Colour {n}.", "language": "en"}
            reply: list[httpx.Response] = []
            times.append(timed(lambda item=item, reply=reply: reply.append(http.post("/v1/items", json=item))))  # type: ignore[misc]
            item_id = reply[0].json()["items"][0]["item_id"]
            body = {"image": encoded, "top_k": 3, "by": "image"}
            found += item_id in [s["item_id"] for s in http.post("/v1/retrieve", json=body).json()["sources"]]
            http.delete(f"/v1/items/{item_id}")
    p50, p95 = statistics.median(times), quantile(times, 0.95)
    print(f"item added: p50 {p50 * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms; next question finds it: {found} of {count}")


def burst(service: Service, requests: int) -> None:
    """All at once: statuses, Retry-After, and the next answer afterwards."""

    def one(n: int) -> tuple[int, str | None]:
        with service.client() as http:
            response = service.ask(http, n, ("none", "rag", "memory")[n % 3])
            return response.status_code, response.headers.get("Retry-After")

    start = time.perf_counter()
    with ThreadPoolExecutor(requests) as threads:
        replies = list(threads.map(one, range(requests)))
    seconds = time.perf_counter() - start
    waits = [int(wait) for _, wait in replies if wait is not None]
    with service.client() as http:
        recovery = timed(lambda: answered(service.ask(http, 0, "none", 2)))
    statuses = dict(sorted(Counter(status for status, _ in replies).items()))
    waits = waits or [0]
    print(f"{requests} at once: {statuses} in {seconds:.1f} s, Retry-After {min(waits)} to {max(waits)} s, "
          f"next 2-token answer {recovery * 1e3:.0f} ms")  # fmt: skip


def half_bodies(service: Service, connections: int) -> None:
    """Connections that send half a body and wait: times and failures of others meanwhile."""
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/answer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        "Content-Length: 4000\r\n\r\n" + "{" + " " * 1_000
    ).encode()
    with ExitStack() as stack, service.client() as http:
        before = [timed(lambda n=n: answered(service.ask(http, n, "none", 2))) for n in range(5)]  # type: ignore[misc]
        for _ in range(connections):
            stack.enter_context(socket.create_connection((host, int(port)))).sendall(head)
        times, failures = [], 0
        for n in range(15):
            response: list[httpx.Response] = []
            times.append(timed(lambda n=n, r=response: r.append(service.ask(http, n, "none", 2))))  # type: ignore[misc]
            failures += response[0].status_code != 200
            failures += http.get("/healthz").status_code != 200
    print(f"{connections} half bodies: others fail {failures} of 30, p50 {statistics.median(times) * 1e3:.0f} ms "
          f"(before: {statistics.median(before) * 1e3:.0f} ms), worst {max(times) * 1e3:.0f} ms")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--users", default="1,8,32")
    parser.add_argument("--modes", default="none,rag,memory")
    parser.add_argument("--new-tokens", type=int, default=8)
    args = parser.parse_args()
    config = load_config(args.config, args.overrides)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    names = ("ray", "torch", "transformers")
    print(f"{platform.platform()}, {os.cpu_count()} cores; " + ", ".join(f"{n} {version(n)}" for n in names))
    images = question_images(config, 30)
    modes = args.modes.split(",")
    calls = {mode: direct(config, images, mode, args.requests, args.new_tokens) for mode in modes}
    with serving(args.config, args.overrides, ray_env=True) as url:
        service = Service(url, images, args.new_tokens)
        for mode in modes:
            service.load(1, 3, mode)
            print(f"{mode}: direct batched call of {config.api.max_batch} {calls[mode]:.2f} answers/s")
            for users in map(int, args.users.split(",")):
                rate, times = service.load(users, args.requests, mode)
                p50, p99 = statistics.median(times) * 1e3, quantile(times, 0.99) * 1e3
                print(f"{mode}: {users:3} users {rate:7.2f} answers/s ({rate / calls[mode]:4.2f} of direct)   "
                      f"p50 {p50:8.1f} ms   p99 {p99:8.1f} ms", flush=True)  # fmt: skip
        short_beside_long(service)
        added_items(service, 20)
        half_bodies(service, 300)
        burst(service, 10 * config.api.max_waiting)
        print(json.dumps(httpx.get(f"{url}/readyz").json()))


if __name__ == "__main__":
    main()
