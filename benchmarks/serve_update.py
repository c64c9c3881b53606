"""What do a rolling update and a restart of the head cost? Figures of a service under load, on a Ray of its own.

    python -m benchmarks.serve_update --config configs/demo.yaml

Needs a finished run (`python -m jobs.quickstart --config ...`). Four users ask all the time, in all modes. Then:

- update: the run's folder is copied, as if another job had made adapter, index and memory again, and `serve deploy`
  moves every deployment to the copy. What was added to the live knowledge moves with the folder.
- head: an item is added, every process of Ray is killed (SIGKILL), and the same two commands start it again.

Counts as benchmarks/serve_chaos.py does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.serve_chaos import Users, asking, known_items
from comem_ray.config import Config, load_config

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class Head:
    """`ray start --head` of one machine with the settings of serve/*.env; `deploy` is what an operator calls."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.http, self.gcs, self.dashboard, *self.others = _free_ports(6)
        self.url = f"http://127.0.0.1:{self.http}"
        self.environment = {**os.environ, **_settings("ray.env"), **_settings("one_machine.env")}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        agent, metrics, client = self.others
        ports = [f"--port={self.gcs}", f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={client}"]
        ports += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command = [str(BIN / "ray"), "start", "--head", "--dashboard-host=127.0.0.1", *ports]
        with open(self.folder / "ray.log", "ab") as log:
            process = subprocess.Popen(
                [*command, "--disable-usage-stats", "--block"], env=self.environment, stdout=log, stderr=log
            )
        _wait(f"http://127.0.0.1:{self.dashboard}/api/version")
        return process

    def deploy(self, config: str, overrides: list[str]) -> None:
        settings: dict[str, Any] = yaml.safe_load((ROOT / "serve/config.yaml").read_text())
        settings["http_options"]["port"] = self.http
        (application,) = settings["applications"]
        application["args"] = {"config": str(Path(config).absolute()), "overrides": overrides}
        application["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        (self.folder / "serve.yaml").write_text(yaml.safe_dump(settings))
        command = [str(BIN / "serve"), "deploy", str(self.folder / "serve.yaml")]
        address = f"http://127.0.0.1:{self.dashboard}"
        subprocess.run([*command, "--address", address], env=self.environment, check=True, capture_output=True)

    def restart(self) -> None:
        for process in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            process.kill()
        self.process.wait()
        self.process = self._start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def _settings(name: str) -> dict[str, str]:
    lines = (ROOT / "serve" / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait(url: str, seconds: float = 300) -> float:
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            if httpx.get(url, timeout=10).status_code in (200, 401, 403):
                return time.monotonic() - start
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer")


def _generation(url: str) -> str:
    return str(httpx.get(f"{url}/readyz", timeout=30).json())


def measure_update(head: Head, users: Users, config_path: str, config: Config, folder: Path) -> None:
    copy = folder / "copy"
    shutil.copytree(Path(config.folder("items")).parent, copy)
    users.outcomes.clear()
    start, last, longest = time.monotonic(), time.monotonic(), 0.0
    head.deploy(config_path, [f"root={copy}"])
    calm = 0
    while calm < 20 and time.monotonic() - start < 400:  # until all replicas are the new ones, and 20 s more
        time.sleep(1)
        longest = max(longest, users.last_answer - last)
        last = max(last, users.last_answer)
        calm = calm + 1 if _updated(copy) else 0
    took = time.monotonic() - start - calm
    print(f"update: {took:.0f} s, longest gap {longest:.1f} s, {dict(sorted(users.outcomes.items()))}", flush=True)


def _updated(copy: Path) -> bool:
    """Whether the copy's journal is open, and every replica is younger than the copy."""
    if not (copy / "live").exists():
        return False
    replicas = [
        p for p in psutil.process_iter(["cmdline"]) if "ServeReplica:comem" in " ".join(p.info["cmdline"] or [])
    ]
    born = copy.stat().st_ctime
    return len(replicas) == 6 and all(p.create_time() > born for p in replicas)


def measure_head(head: Head, users: Users, config_path: str, overrides: list[str]) -> None:
    image = users.images[0][1]
    item = {"image": image, "title": "Kept", "text": "It was added before the head was killed.", "language": "en"}
    reply = httpx.post(f"{head.url}/v1/items", json=item, timeout=60).json()["items"][0]
    users.outcomes.clear()
    start = time.monotonic()
    head.restart()
    up = time.monotonic() - start
    head.deploy(config_path, overrides)
    _wait(f"{head.url}/readyz")
    print(f"head killed: Ray up after {up:.0f} s, ready after {time.monotonic() - start:.0f} s", flush=True)
    time.sleep(10)
    kept = httpx.get(f"{head.url}/v1/items/{reply['item_id']}", timeout=60).status_code == 200
    print(f"item added before is there: {kept}; {dict(sorted(users.outcomes.items()))}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    args = parser.parse_args()
    config = load_config(args.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head = Head(folder)
        try:
            head.deploy(args.config, [])
            print(f"ready after {_wait(f'{head.url}/readyz'):.0f} s: {_generation(head.url)}", flush=True)
            users = Users(head.url, known_items(config, 5))
            users.learn()
            with asking(users):
                time.sleep(5)
                measure_update(head, users, args.config, config, folder)
                measure_head(head, users, args.config, [f"root={folder / 'copy'}"])
        finally:
            head.stop()


if __name__ == "__main__":
    main()
