"""What do killed, stopped and moved parts cost, and does a long run grow? Figures of a service under load.

    python -m benchmarks.serve_chaos --config configs/demo.yaml [--soak-minutes 30] [--only Reasoner,soak]

Needs a finished run (`python -m jobs.quickstart --config ...`). Four users ask all the time, in all modes, each with
the image of a known item. An answer is *wrong* where its first source is another item, or its text differs from the one
that the same question got in peace. Then, one after the other:

- a replica of each deployment is killed (SIGKILL), and one of the reasoner is stopped (SIGSTOP);
- `memory/` is moved away for some seconds;
- eight questions come at once, each with an image of 50 megapixels: memory before, at the peak and 5 s after;
- the users go on for `--soak-minutes` while a writer adds and deletes items and others leave their streams; memory and
  open files of every process are recorded at the start (after a warm-up) and at the end.

Counts: answers, refused with Retry-After (retryable), failed otherwise, wrong; seconds until answers flow again.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
from PIL import Image

from benchmarks.serve_overhead import serving
from comem_ray.config import Config, load_config
from comem_ray.knowledge.items import ItemStore

MODES = ("none", "rag", "memory")
QUESTION = "Which country is this?"
PATIENCE_S = 8  # without an answer: then answers do not flow
DEPLOYMENTS = ("Knowledge", "Retriever", "MemoryEncoder", "Reasoner", "Ingress")


@dataclass
class Users:
    """Users that ask all the time; `outcomes` counts what they got."""

    url: str
    images: list[tuple[str, str]]  # item_id and image, as base64
    expected: dict[tuple[int, str], str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    last_answer: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)

    def learn(self) -> None:
        """Asks each question once, in peace."""
        with httpx.Client(base_url=self.url, timeout=120) as http:
            for n in range(len(self.images)):
                for mode in MODES:
                    self.expected[n, mode] = self._post(http, n, mode).json()["answer"]

    def run(self, start: int) -> None:
        with httpx.Client(base_url=self.url, timeout=120) as http:
            n = start
            while not self.stopped.is_set():
                self._ask(http, n % len(self.images), MODES[n % 3])
                n += 1

    def _ask(self, http: httpx.Client, n: int, mode: str) -> None:
        try:
            response = self._post(http, n, mode)
        except httpx.HTTPError as error:
            self.outcomes[f"connection ({type(error).__name__})"] += 1
            time.sleep(0.2)
            return
        if response.status_code != 200:
            retryable = response.status_code in (429, 503) and "Retry-After" in response.headers
            self.outcomes["refused, retryable" if retryable else f"failed ({response.status_code})"] += 1
            time.sleep(0.2)
            return
        body = response.json()
        right_item = mode == "none" or body["sources"][0]["item_id"] == self.images[n][0]
        self.outcomes["right" if right_item and body["answer"] == self.expected[n, mode] else "WRONG"] += 1
        self.last_answer = time.monotonic()

    def _post(self, http: httpx.Client, n: int, mode: str) -> httpx.Response:
        body = {"question": QUESTION, "image": self.images[n][1], "mode": mode, "max_new_tokens": 8, "language": "en"}
        return http.post("/v1/answer", json=body)


def processes() -> list[psutil.Process]:
    """All processes below this one: the cluster of this run, and no other's."""
    return psutil.Process().children(recursive=True)


def replicas(deployment: str) -> list[psutil.Process]:
    return [p for p in processes() if f":{deployment}" in " ".join(_command(p)) and "ServeReplica" in _command(p)[0]]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


@contextmanager
def asking(users: Users, count: int = 4) -> Iterator[None]:
    threads = [threading.Thread(target=users.run, args=(100 * n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        users.stopped.set()
        for thread in threads:
            thread.join()


def disturb(users: Users, name: str, disturbance: Callable[[], None], seconds: float) -> None:
    """Counts what users get from the disturbance on, until `seconds` after answers flow again."""
    before = users.outcomes.copy()
    start = time.monotonic()
    disturbance()
    longest, last = 0.0, time.monotonic()
    calm_until = start + seconds
    while time.monotonic() < calm_until and time.monotonic() - start < 300:
        time.sleep(0.1)
        if users.last_answer > last:
            longest, last = max(longest, users.last_answer - last), users.last_answer
        elif time.monotonic() - last > PATIENCE_S:
            calm_until = time.monotonic() + seconds
    changed = users.outcomes - before
    print(f"{name:24} longest gap between answers {max(longest, time.monotonic() - last):6.1f} s   "
          f"{dict(sorted(changed.items()))}", flush=True)  # fmt: skip


def kill(deployment: str) -> Callable[[], None]:
    return lambda: replicas(deployment)[0].kill()


def stop_reasoner() -> None:
    replicas("Reasoner")[0].send_signal(signal.SIGSTOP)


def move_memory(config: Config) -> Callable[[], None]:
    folder = config.folder("memory")

    def move() -> None:
        os.rename(folder, folder.with_name("memory-moved"))
        time.sleep(8)
        os.rename(folder.with_name("memory-moved"), folder)

    return move


def usage() -> dict[str, tuple[int, int]]:
    """Resident megabytes and open files by process (deployment or part of Ray)."""
    result: dict[str, tuple[int, int]] = {}
    for process in processes():
        try:
            name = _command(process)[0].split("::")[-1].replace("ServeReplica:comem:", "")
            if any(name.startswith(d) for d in (*DEPLOYMENTS, "Proxy", "ServeController")):
                result[f"{name} {process.pid}"] = (process.memory_info().rss // 2**20, process.num_fds())
        except psutil.Error:
            continue
    return result


def soak(users: Users, minutes: float) -> None:
    """Load for a long time, with changes to the knowledge and users who leave their streams."""
    warm_up = min(3.0, minutes / 5) * 60

    def writer() -> None:
        with httpx.Client(base_url=users.url, timeout=120) as http:
            while not users.stopped.is_set():
                item = {"image": users.images[0][1], "title": "Soak", "text": f"{time.time()}", "language": "de"}
                reply = http.post("/v1/items", json=item)
                if reply.status_code == 201:
                    http.delete(f"/v1/items/{reply.json()['items'][0]['item_id']}")
                users.outcomes["written" if reply.status_code == 201 else f"write {reply.status_code}"] += 1
                time.sleep(2)

    def leaver() -> None:
        body = {"question": QUESTION, "mode": "none", "max_new_tokens": 200, "stream": True}
        while not users.stopped.is_set():
            with (
                httpx.Client(base_url=users.url, timeout=120) as http,
                http.stream("POST", "/v1/answer", json=body) as r,
            ):
                next(r.iter_text(), None)
            users.outcomes["left"] += 1
            time.sleep(1)

    others = [threading.Thread(target=work, daemon=True) for work in (writer, leaver)]
    for thread in others:
        thread.start()
    time.sleep(warm_up)
    first = usage()
    time.sleep(minutes * 60 - warm_up)
    last = usage()
    print(f"soak of {minutes:g} minutes: {dict(sorted(users.outcomes.items()))}")
    for name, (mb, fds) in last.items():
        mb_before, fds_before = first.get(name, (0, 0))
        print(f"   {name:32} {mb_before:6} -> {mb:6} MB   {fds_before:4} -> {fds:4} open files")


def large_images(url: str, count: int = 8) -> None:
    """Questions with images of 50 megapixels, all at once, while nobody else asks."""
    file = io.BytesIO()
    Image.effect_noise((1000, 780), 60).convert("RGB").resize((8000, 6240)).save(file, "JPEG", quality=60)
    image = base64.b64encode(file.getvalue()).decode()
    body = {"question": QUESTION, "image": image, "mode": "memory", "max_new_tokens": 4}
    before, peak, statuses = usage(), dict[str, int](), list[int]()
    threads = [
        threading.Thread(
            target=lambda: statuses.append(httpx.post(f"{url}/v1/answer", json=body, timeout=300).status_code)
        )
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for name, (mb, _) in usage().items():
            peak[name] = max(peak.get(name, 0), mb)
        time.sleep(0.1)
    time.sleep(5)
    after = usage()
    print(f"{count} images of {file.tell() / 1e6:.1f} MB at once: {dict(Counter(statuses))}")
    for name, (mb, _) in before.items():
        print(f"   {name:32} {mb:6} MB, peak {peak.get(name, 0):6}, after {after.get(name, (0, 0))[0]:6}")


def known_items(config: Config, count: int) -> list[tuple[str, str]]:
    store = ItemStore(config.folder("items"))
    items = [item for item in store.get(store.ids[: 8 * count]) if item.language == "en"][:count]
    return [(item.item_id, base64.b64encode(item.image or b"").decode()) for item in items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--only", default=None, help="parts: deployments, stopped, moved, images, soak")
    parser.add_argument("--soak-minutes", type=float, default=30)
    args = parser.parse_args()
    config = load_config(args.config, args.overrides)
    only = None if args.only is None else set(args.only.split(","))
    cases: dict[str, tuple[Callable[[], None], float]] = {d: (kill(d), 10.0) for d in DEPLOYMENTS}
    cases |= {"stopped": (stop_reasoner, 10.0), "moved": (move_memory(config), 5.0)}
    with serving(args.config, args.overrides, ray_env=True) as url:
        users = Users(url, known_items(config, 5))
        users.learn()
        if only is None or "images" in only:
            large_images(url)
        with asking(users):
            time.sleep(5)
            for name, (disturbance, seconds) in cases.items():
                if only is None or name in only:
                    disturb(users, name, disturbance, seconds)
            if only is None or "soak" in only:
                users.outcomes.clear()
                soak(users, args.soak_minutes)
        ready: Any = httpx.get(f"{url}/readyz").json()
        print(ready)


if __name__ == "__main__":
    main()
