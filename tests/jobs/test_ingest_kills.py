"""jobs.ingest on a real local Ray: kill -9 of workers, readers and driver change no byte."""

import gzip
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.ingesting import configuration, encoded, line, stored, tsv
from support.tiny import image

from comem_ray.config import Config
from jobs import ingest

UNITS = 24


@pytest.fixture(scope="module")
def plain(cluster, tmp_path_factory) -> tuple[Path, Config, dict[str, bytes]]:
    """A run of two files and 24 units that nothing interrupts, and its bytes."""
    folder = tmp_path_factory.mktemp("plain")
    for n in range(8):
        (folder / f"{n}.jpg").write_bytes(encoded(image(n, 1_200, 900), "JPEG"))
    rows = [line(f"T{n}", f"{n % 8}.jpg" if n % 50 else "missing.jpg") for n in range(UNITS * 7 - 10)]
    rows += rows[:10]
    (folder / "a.tsv.gz").write_bytes(gzip.compress(tsv(*rows[: UNITS * 4])))
    (folder / "b.tsv").write_bytes(tsv(*rows[UNITS * 4 :]))
    config = configuration(folder, [{"path": str(folder / name)} for name in ("a.tsv.gz", "b.tsv")])
    summary = ingest.run(config)
    assert (summary["rows"], summary["duplicates"] > 0, summary["retryable"] > 0) == (UNITS * 7, True, True)
    return folder, config, stored(config)


def another(plain: tuple[Path, Config, dict[str, bytes]], root: str) -> Config:
    folder, config, _ = plain
    return config.model_copy(update={"root": str(folder / root)})


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def done(config: Config) -> int:
    return len(list((config.folder("items") / "records").glob("*.json")))


def test_killed_workers_and_readers_change_nothing(plain, cluster):
    config = another(plain, "workers-killed")
    result: list[Any] = []
    job = threading.Thread(target=lambda: result.append(ingest.run(config)))
    job.start()
    killed: dict[int, str] = {}
    for part, least in (("IngestUnit", 3), ("read", 5), ("IngestUnit", 9)):
        wait_for(lambda least=least: done(config) >= least)
        for process in cluster.workers(part):
            if process.pid not in killed:
                killed[process.pid] = part
                process.kill()
                break
    job.join(timeout=300)
    assert "IngestUnit" in killed.values()
    assert result
    assert stored(config) == plain[2]


def test_a_killed_driver_is_taken_up_where_it_was(plain, start_job):
    config = another(plain, "driver-killed")
    path = plain[0] / "driver-killed.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    first = start_job("jobs.ingest", path)
    first.wait_for(lambda: done(config) >= 4)
    first.kill()
    assert not (config.folder("items") / "manifest.json").exists()
    time.sleep(1)
    kept = {record.name: record.stat().st_mtime_ns for record in finished(config)}
    assert 4 <= done(config) < UNITS

    assert "== ingest" in start_job("jobs.ingest", path).finish()
    assert stored(config) == plain[2]
    assert len(kept) >= 1
    assert kept.items() <= {record.name: record.stat().st_mtime_ns for record in finished(config)}.items()


def finished(config: Config) -> list[Path]:
    """Records of units that a rerun has no reason to touch."""
    records = (config.folder("items") / "records").glob("*.json")
    return [path for path in records if json.loads(path.read_text())["counts"]["retryable"] == 0]
