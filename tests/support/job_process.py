"""Jobs as processes on one Ray cluster of the test session: start them, wait for them, kill them or their workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
HEAD = """
import sys, ray
ray.init("local", num_cpus=4, include_dashboard=True, log_to_driver=False)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


class Cluster:
    """A Ray cluster of its own, without `ray start`: other users of this machine would find that one, and stop it."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-c", HEAD], cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        line = next((line for line in self._process.stdout if line.startswith("address ")), "")
        self.address = line.removeprefix("address ").strip()
        assert self.address, "Ray did not start"

    def workers(self, name: str) -> list[psutil.Process]:
        """Its processes whose title has `name` in it, the youngest first."""
        workers = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and name in title:
                    workers.append((process.create_time(), process))
            except psutil.Error:  # it has just ended
                continue
        return [process for _, process in sorted(workers, key=lambda worker: -worker[0])]

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


class Job:
    """`python -m MODULE --config PATH ...` on a cluster."""

    def __init__(self, cluster: Cluster, module: str, path: Path, *more: str):
        self._cluster = cluster
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--config", str(path), *more],
            cwd=REPOSITORY,
            env=os.environ | {"RAY_ADDRESS": cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, code: int = 0) -> str:
        """Waits for the end, which must have that exit code. Returns what was printed."""
        output = self._process.communicate(timeout=400)[0].decode()
        assert self._process.returncode == code, output
        return output

    def wait_for(self, condition: Callable[[], Any], seconds: float = 300) -> Any:
        """What `condition` returns once that is true; the job must not end before."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert self._process.poll() is None, self._process.communicate()[0].decode()
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.01)
        return value

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the job and to what it started in its group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """kill -9 of the driver."""
        self._process.kill()
        self._process.wait()

    def kill_worker(self, name: str) -> None:
        """kill -9 of the youngest worker whose title has `name` in it, as soon as there is one."""
        self.wait_for(lambda: self._cluster.workers(name))[0].kill()
