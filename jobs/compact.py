"""What was added, replaced or deleted while the service runs becomes ordinary shards, which the service goes on with.

    ray job submit --working-dir . -- python -m jobs.compact --config configs/demo.yaml

The changes of the journal are exported into live/, a source like the others. Then the stages run on the cores that
the service leaves free, and make what is new. Last the service opens the new generation between two requests; until
then it serves the old one and the journal. With --at 10000 nothing is done before 10,000 changes wait (for cron).

It may be killed at any point and run again. It tries no failed image again, and looks at no image of a file again:
jobs.ingest does. Without a service it opens the journal itself, and the next start of a service reads the new shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from comem_ray.artifacts import ArtifactError, Manifest, check_made_from, load_manifest
from comem_ray.artifacts.lock import LockedError, stage_lock
from comem_ray.config import Config, WorkersConfig
from comem_ray.knowledge.live.export import export
from comem_ray.knowledge.live.journal import Journal
from comem_ray.knowledge.sources.live import live_source
from jobs.common import StageFailed, Summary, main, run_stage
from jobs.quickstart import STAGES

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

STAGE = "compact"
FOLDERS = {"items": "ingest", "embeddings": "embed_items", "index": "build_index", "memory": "encode_memory"}
SECTIONS = ("ingest", "clip", "index", "memory")  # of the configuration, with the workers of these stages
LEAST_CPUS = 0.1  # cores; on less a worker would hardly get on
WAIT_S = 1_800.0  # seconds that the service may take to export, or to open the new generation


def run(config: Config, at: int = 1) -> Summary:
    """Folds the journal's changes into the stages if at least `at` wait, or if an earlier run did not get to its end.

    Raises LockedError where a service that this cluster does not know holds the journal, StageFailed where nothing is
    free to compute on, or where the service fails.
    """
    folded = _folded(config)
    waiting = _ask(config, "waiting", lambda journal: sum(journal.counts(folded or 0)))
    if folded is not None and waiting < max(1, at):
        fewer = f"nothing was done: fewer than {at:,} changes wait"
        return {"changes waiting": waiting, "outcome": fewer if waiting else "nothing to fold"}
    fitting = fitted(config, ray.available_resources())
    # An ingest that is at work reads the export of now.
    with stage_lock(config.folder("locks") / "ingest", f"ingest in {config.folder('')}"):
        seq = _ask(config, "export", lambda journal: export(journal, config.folder("live")))
    _refuse_other_run(config, seq)
    summaries = {name: run_stage(name, stage, fitting) for name, stage in STAGES.items()}
    return {
        "changes folded": waiting,
        "rows deleted": summaries["ingest"].get("deleted", 0),
        "items": summaries["ingest"]["items"],
        "embeddings computed": summaries["embed_items"]["items computed"],
        "memory computed": summaries["encode_memory"]["items computed"],
        **{f"{name} (s)": summary["seconds"] for name, summary in summaries.items()},
        "service": _reload(config),
    }


def fitted(config: Config, free: Mapping[str, float]) -> Config:
    """`config` with workers that fit the cores and GPUs that are `free`, and without another try at failed images.

    A worker keeps its number of threads, which its sums depend on. Raises StageFailed where nothing is free.
    """
    cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
    if cpus < LEAST_CPUS:
        raise StageFailed(
            f"no core of this cluster is free ({cpus:g}): wait for the jobs that run, or let the service reserve less "
            "(serve/config.yaml); nothing was changed"
        )
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        section = getattr(config, name)
        if section.workers.gpus and not gpus:
            raise StageFailed(
                f"no GPU of this cluster is free, and {name}.workers.gpus is {section.workers.gpus:g}: add a GPU, or "
                "stop the service and run this again; nothing was changed"
            )
        sections[name] = section.model_copy(update={"workers": _fit(section.workers, cpus, gpus)})
    once = {"retry_failed": False, "recheck": False}
    return config.model_copy(update={**sections, "ingest": sections["ingest"].model_copy(update=once)})


def _fit(workers: WorkersConfig, free_cpus: float, free_gpus: float) -> WorkersConfig:
    cpus, gpus = _part(workers.cpus, free_cpus), _part(workers.gpus, free_gpus)
    count = min(workers.count, int(free_cpus / cpus + 1e-9), int(free_gpus / gpus + 1e-9) if gpus else workers.count)
    update = {"count": max(1, count), "cpus": cpus, "gpus": gpus, "threads": workers.thread_count}
    return workers.model_copy(update=update)


def _part(wanted: float, free: float) -> float:
    """As much of `wanted` as is free: Ray takes hundredths below 1, and whole GPUs above."""
    return wanted if wanted <= free else float(int(free)) if free >= 1 else int(free * 100) / 100


def _folded(config: Config) -> int | None:
    """The last change that is in all stages; None where they do not belong together, or are not of the last export."""
    try:
        manifests = _manifests(config)
        check_made_from(**manifests)
    except ArtifactError:
        return None
    live, seq = live_source(config.folder("live"), []), int(manifests["items"].extra.get("live", 0))
    return seq if live is None or live.seq == seq else None


def _manifests(config: Config) -> dict[str, Manifest]:
    return {folder: load_manifest(config.folder(folder), stage) for folder, stage in FOLDERS.items()}


def _ask(config: Config, method: str, ask: Callable[[Journal], int]) -> int:
    """What `ask` says of the journal; where a service holds it, what its deployment Knowledge answers to `method`."""
    folder = config.folder("live")
    if not folder.exists():
        return 0  # nothing was ever changed: a journal would be a file of no use
    try:
        with closing(Journal(folder)) as journal:
            return ask(journal)
    except LockedError:
        knowledge = _knowledge()
        if knowledge is None:
            raise
        return int(_answer(knowledge, method))


def _knowledge() -> DeploymentHandle | None:
    """The deployment that owns the journal of the service in this cluster; None where there is none."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    if not ray.is_initialized():  # else Serve would join any cluster
        return None
    try:
        return serve.get_deployment_handle("Knowledge", "comem")
    except (RayServeException, KeyError):
        return None


def _answer(knowledge: DeploymentHandle, method: str) -> Any:
    try:
        return getattr(knowledge, method).remote().result(timeout_s=WAIT_S)
    except (RayError, TimeoutError) as error:
        cause = getattr(error, "cause", None) or error
        raise StageFailed(
            f"the service did not {method}: {cause}. It serves what it served before; run this again"
        ) from error


def _refuse_other_run(config: Config, seq: int) -> None:
    live = live_source(config.folder("live"), [])
    if seq != (live.seq if live else 0):
        raise StageFailed(
            f"the service in this cluster exported its changes up to {seq:,}, but not into {config.folder('live')}: it "
            "serves another run. Name the configuration that it serves"
        )


def _reload(config: Config) -> str:
    """Lets the service open what the stages made. Says what it serves then."""
    knowledge = _knowledge()
    if knowledge is None:
        return "none runs in this cluster: its next start reads the new shards"
    generations = _answer(knowledge, "reload")
    made = {folder: manifest.generation for folder, manifest in _manifests(config).items()}
    served = ", ".join(f"{folder}/ {generation}" for folder, generation in generations.items())
    if any(generation != made.get(folder, generation) for folder, generation in generations.items()):
        raise StageFailed(f"the service serves {served} after its reload, which is not what was made: run this again")
    return f"serves {served}"


if __name__ == "__main__":
    main(STAGE, run, __doc__, numbers={"at": "do nothing before N changes wait, as for cron; default: 1"})
