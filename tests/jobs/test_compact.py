"""jobs.compact: afterwards the bytes are those of a run from nothing, wherever it was killed. Mostly without Ray."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from support.in_process import run_in_process
from support.live_items import live_item
from support.tiny import png, stage_bytes
from support.tiny_clip import write_clip

from comem_ray.artifacts import ArtifactError, check_made_from, load_manifest
from comem_ray.artifacts.lock import LockedError, stage_lock
from comem_ray.config import Config, load_config
from comem_ray.knowledge.items import ItemStore
from comem_ray.knowledge.live.journal import Journal
from jobs import compact, quickstart
from jobs.common import StageFailed, run_stage

FOLDERS = tuple(compact.FOLDERS)
ROWS = 10


@pytest.fixture(scope="module")
def base(make_config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run of two files in 5 shards. Items are computed one by one, for a batch rounds otherwise."""
    home = tmp_path_factory.mktemp("home")
    for n in range(ROWS):
        (home / f"{n}.png").write_bytes(png(n))
    rows = [{"image": f"{n}.png", "title": f"T{n}", "text": f"Text {n}.", "language": "en"} for n in range(ROWS)]
    for name, some in (("b", rows[:6]), ("a", rows[6:])):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    config = make_config(
        root=str(home / "base"),
        ingest={
            "sources": [{"path": str(home / f"{name}.jsonl")} for name in "ba"],
            "rows_per_shard": 2,
            "workers": {"count": 2, "cpus": 0.5},
        },
        clip={**write_clip(home)[0], "batch_size": 1},
        index={"recall_queries": 2},
        memory={"batch_tokens": 1},
    )
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch)
        quickstart.run(config)
    return config


@pytest.fixture
def config(base: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """A copy of the run for one test, whose stages run in this process."""
    run_in_process(monkeypatch)
    shutil.copytree(base.root, tmp_path / "run")
    return base.model_copy(update={"root": str(tmp_path / "run")})


def ids(config: Config) -> list[str]:
    return ItemStore(config.folder("items")).ids


def change(config: Config, puts: dict[int, str | None], deletes: list[str] | None = None) -> None:
    """Puts live items by number, each under its own id or a given one, and deletes others."""
    journal = Journal(config.folder("live"))
    journal.write([live_item(n, item_id) for n, item_id in puts.items()], deletes or [])
    journal.close()


def id_of(number: int) -> str:
    return live_item(number).content.item.item_id


def made(config: Config) -> dict[str, dict[str, bytes]]:
    """All bytes of the four stages, but what a scan keeps of the time and place of a file."""
    stages = {folder: stage_bytes(config.folder(folder)) for folder in FOLDERS}
    return {folder: {n: data for n, data in files.items() if "scan/" not in n} for folder, files in stages.items()}


def from_nothing(config: Config) -> dict[str, dict[str, bytes]]:
    """The same of a run into a new folder that has the live source of this one."""
    other = config.model_copy(update={"root": f"{config.root}-from-nothing"})
    live = ("current.json", "items-*", "deleted-*", "images")
    for path in [path for pattern in live for path in config.folder("live").glob(pattern)]:
        target = other.folder("live") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    quickstart.run(other)
    bytes_of_stages = made(other)
    shutil.rmtree(other.root)
    return bytes_of_stages


def test_afterwards_the_bytes_are_those_of_a_run_from_nothing(config: Config) -> None:
    rows = ids(config)
    change(config, {0: None, 1: None, 2: rows[3]}, [rows[0], rows[7]])
    summary = compact.run(config)
    assert (summary["changes folded"], summary["rows deleted"], summary["items"]) == (5, 3, ROWS)
    assert (summary["embeddings computed"], summary["memory computed"]) == (3, 3)
    left = [row for n, row in enumerate(rows) if n not in (0, 3, 7)]
    assert ids(config) == [*left, id_of(0), id_of(1), rows[3]]
    (item,) = ItemStore(config.folder("items")).get([rows[3]])
    assert item == replace(live_item(2).content.item, item_id=rows[3])

    # A second one: what does not change stays finished. The journal has forgotten what is in the shards.
    journal = Journal(config.folder("live"))
    journal.prune(load_manifest(config.folder("items"), "ingest").extra["live"])
    journal.close()
    records = {path: path.stat().st_mtime_ns for f in ("items", "memory") for path in record_files(config, f)}
    change(config, {3: None, 4: rows[0]}, [rows[3]])
    summary = compact.run(config)
    assert (summary["changes folded"], summary["rows deleted"], summary["items"]) == (3, 3, ROWS + 1)
    assert (summary["embeddings computed"], summary["memory computed"]) == (2, 2)
    assert ids(config) == [*left, id_of(0), id_of(1), id_of(3), rows[0]]
    # 5 units of the files and the first of the live source, which has 2 rows per shard.
    kept = [path.name for path, time in records.items() if path.exists() and path.stat().st_mtime_ns == time]
    assert sorted(kept) == sorted(
        [*(f"b-{n:06d}.json" for n in range(3)), "a-000000.json", "a-000001.json"] * 2 + ["live-000000.json"] * 2
    )
    assert made(config) == from_nothing(config)

    # Everything that was added goes again.
    change(config, {}, [id_of(0), id_of(1), id_of(3), rows[0]])
    assert compact.run(config)["items"] == 7
    assert ids(config) == left
    assert made(config) == from_nothing(config)


def record_files(config: Config, folder: str) -> list[Path]:
    return list((config.folder(folder) / "records").iterdir())


class Killed(BaseException):
    pass


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function n -> None: the n-th rename from now on, and all after it, do not come about."""
    rename, left = os.replace, [0]

    def rename_or_die(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        rename(*arguments)

    def kill(steps: int) -> None:
        left[0] = steps
        monkeypatch.setattr(os, "replace", rename_or_die)

    return kill


def test_killed_again_and_again_it_ends_the_same_and_no_item_is_lost_meanwhile(
    config: Config, kill_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ids(config)
    change(config, {0: None, 1: None, 2: rows[3]}, [rows[0], rows[7]])
    wanted = {*rows, id_of(0), id_of(1)} - {rows[0], rows[7]}
    kills = 0
    while True:
        kill_after(3 * kills)
        try:
            run_stage("compact", compact.run, config)
            break
        except Killed:
            kills += 1
        finally:
            monkeypatch.undo()
            run_in_process(monkeypatch)
        for _ in range(2):  # before and after a service starts, which forgets what the shards hold
            assert held(config) == wanted
        assert kills < 60
    assert kills > 8
    assert held(config) == wanted == set(ids(config))
    assert made(config) == from_nothing(config)


def held(config: Config) -> set[str]:
    """The items that a service would serve which starts now; it prunes the journal if it can start."""
    items = ItemStore(config.folder("items"))
    folded = items.manifest.extra.get("live", 0)
    journal = Journal(config.folder("live"))
    try:
        changes = journal.changes(folded)
        check_made_from(**{f: load_manifest(config.folder(f), stage) for f, stage in compact.FOLDERS.items()})
        journal.prune(folded)
    except ArtifactError:  # the stages do not belong together: the compaction has to be run again first
        pass
    finally:
        journal.close()
    return {*items.ids, *(added.item_id for added in changes.added)} - set(changes.removed)


def test_nothing_to_fold_and_too_few_changes(config: Config) -> None:
    before = made(config)
    assert compact.run(config)["outcome"] == "nothing to fold"
    assert not config.folder("live").exists()
    change(config, {0: None, 1: None})
    assert compact.run(config, at=3) == {
        "changes waiting": 2,
        "outcome": "nothing was done: fewer than 3 changes wait",
    }
    assert made(config) == before
    assert compact.run(config, at=2)["items"] == ROWS + 2
    after = made(config)
    assert compact.run(config)["outcome"] == "nothing to fold"
    assert made(config) == after


def test_what_an_earlier_run_did_not_get_to_is_done_though_nothing_waits(config: Config) -> None:
    change(config, {0: None})
    compact.run(config)
    after = made(config)
    (config.folder("memory") / "manifest.json").unlink()
    assert compact.run(config, at=100)["changes folded"] == 0
    assert made(config) == after


@pytest.mark.parametrize(
    ("free", "workers", "wanted"),
    [
        ({"CPU": 1.1}, {"count": 1, "cpus": 2}, (1, 1.0, 0, 2)),
        ({"CPU": 1.1}, {"count": 2, "cpus": 0.5}, (2, 0.5, 0, 1)),
        ({"CPU": 0.6}, {"count": 2, "cpus": 1}, (1, 0.6, 0, 1)),
        ({"CPU": 7.9}, {"count": 8, "cpus": 2}, (3, 2, 0, 2)),
        ({"CPU": 16, "GPU": 3}, {"count": 4, "cpus": 4, "gpus": 1}, (3, 4, 1, 4)),
        ({"CPU": 16, "GPU": 0.5}, {"count": 4, "cpus": 4, "gpus": 1}, (1, 4, 0.5, 4)),
        ({"CPU": 16, "GPU": 2}, {"count": 4, "cpus": 1, "gpus": 0.5, "threads": 3}, (4, 1, 0.5, 3)),
    ],
)
def test_workers_fit_what_is_free_and_keep_their_threads(
    base: Config, free: dict[str, float], workers: dict[str, float], wanted: tuple[float, ...]
) -> None:
    config = Config.model_validate({**base.model_dump(), "memory": {"workers": workers}})
    fitting = compact.fitted(config, free)
    fitted = fitting.memory.workers
    assert (fitted.count, fitted.cpus, fitted.gpus, fitted.threads) == wanted
    assert fitted.count * fitted.cpus <= free["CPU"]
    assert fitted.count * fitted.gpus <= free.get("GPU", 0)
    assert (fitting.ingest.retry_failed, fitting.ingest.recheck) == (False, False)
    assert fitting.ingest.sources == config.ingest.sources


@pytest.mark.parametrize(
    ("free", "message"),
    [
        ({"CPU": 4.0}, r"no GPU of this cluster is free, and clip\.workers\.gpus is 1: .*nothing was changed"),
        ({"GPU": 1.0}, r"no core of this cluster is free \(0\): .*nothing was changed"),
    ],
)
def test_where_nothing_is_free_nothing_is_changed(
    config: Config, monkeypatch: pytest.MonkeyPatch, free: dict[str, float], message: str
) -> None:
    change(config, {0: None})
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    clip = {**config.clip.model_dump(), "workers": {"gpus": 1}}
    with pytest.raises(StageFailed, match=message):
        compact.run(Config.model_validate({**config.model_dump(), "clip": clip}))
    assert not (config.folder("live") / "current.json").exists()


def test_an_ingest_that_is_at_work_is_not_disturbed(config: Config) -> None:
    change(config, {0: None})
    with (
        stage_lock(config.folder("locks") / "ingest", "ingest"),
        pytest.raises(LockedError, match="another run of"),
    ):
        compact.run(config)
    assert not (config.folder("live") / "current.json").exists()


@pytest.fixture
def run_file(base: Config, tmp_path: Path) -> Path:
    """The configuration file of a copy of the run, with changes that wait."""
    shutil.copytree(base.root, tmp_path / "run")
    config = base.model_copy(update={"root": str(tmp_path / "run")})
    change(config, {0: None, 1: None, 2: ids(config)[3]}, ids(config)[:1])
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def test_a_journal_that_this_cluster_does_not_know_of_is_named(run_file: Path, start_job) -> None:
    config = load_config(run_file)
    journal = Journal(config.folder("live"))
    output = start_job("jobs.compact", run_file).finish(1)
    journal.close()
    assert f"process {os.getpid()} on " in output.splitlines()[-1]
    assert "Traceback" not in output


@pytest.fixture
def knowledge(cluster, run_file: Path) -> Iterator[Any]:
    """A Serve application that holds the journal, as the service does: its deployment Knowledge."""
    from ray import serve

    config = load_config(run_file)

    class Knowledge:
        def __init__(self) -> None:
            self.journal, self.reloads = Journal(config.folder("live")), 0

        def _folded(self) -> int:
            return int(load_manifest(config.folder("items"), "ingest").extra.get("live", 0))

        def waiting(self) -> int:
            return sum(self.journal.counts(self._folded()))

        def export(self) -> int:
            from comem_ray.knowledge.live.export import export

            return export(self.journal, config.folder("live"))

        def reload(self) -> dict[str, str]:
            self.reloads += 1
            self.journal.prune(self._folded())
            return {f: load_manifest(config.folder(f), stage).generation for f, stage in compact.FOLDERS.items()}

        def reloaded(self) -> int:
            return self.reloads

    serve.start(http_options={"location": "NoServer"})
    options = {"ray_actor_options": {"num_cpus": 0.1}}
    yield serve.run(serve.deployment(Knowledge, **options).bind(), name="comem", route_prefix=None)
    serve.shutdown()


def test_with_a_service_on_a_cluster_killed_in_two_stages(knowledge, run_file: Path, start_job, monkeypatch) -> None:
    config = load_config(run_file)
    for folder, unit in (("embeddings", "live-000000"), ("memory", "live-000001")):
        job = start_job("jobs.compact", run_file)
        job.wait_for((config.folder(folder) / "records" / f"{unit}.json").exists)
        if folder == "embeddings":
            assert "another run of compact" in start_job("jobs.compact", run_file).finish(1)
        job.kill()
    assert knowledge.reloaded.remote().result() == 0
    output = start_job("jobs.compact", run_file).finish()
    assert "serves items/ " in output
    assert knowledge.reloaded.remote().result() == 1
    output = start_job("jobs.compact", run_file).finish()
    assert "nothing to fold" in output
    run_in_process(monkeypatch)
    assert made(config) == from_nothing(config)
