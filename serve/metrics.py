"""Metrics of the service, for Prometheus: what each kind of process counts, under which name, in which unit.

In a replica they go to Ray, which shows them at each node's metrics port with the prefix `ray_` and the tags
`deployment`, `replica` and `application`. Outside Ray (tests, benchmarks) `Recorder.values` has them, and nothing else.

Tags have few values: the path as declared (`/v1/items/{item_id}`), the mode, the status, the type of an error. No item
id, no key, no text of a user. docs/operation.md lists the metrics; docs/grafana/comem.json draws them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ray import serve as ray_serve
from ray.serve import metrics as ray_metrics
from ray.serve.exceptions import RayServeException
from starlette.types import Scope

Ending = Literal["stop", "length", "cancelled", "timed_out", "failed"]
MemorySource = Literal["store", "live", "kept", "encoded"]
Change = Literal["added", "replaced", "deleted"]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


@dataclass(frozen=True)
class Definition:
    """A metric. Histograms have upper bounds of their buckets."""

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


DEFINITIONS = {
    # the ingress
    "comem_requests_total": Definition("counter", "Finished HTTP requests", ("path", "mode", "status")),
    "comem_open_requests": Definition("gauge", "HTTP requests under way in a replica of the ingress"),
    "comem_stage_seconds": Definition("histogram", "Seconds of a request by stage", ("stage", "mode"), SECONDS),
    "comem_first_token_seconds": Definition(
        "histogram", "Seconds from a streamed request to its first token", ("mode",), SECONDS
    ),
    "comem_prompt_tokens_total": Definition("counter", "Tokens of prompts, without memory vectors", ("mode",)),
    "comem_completion_tokens_total": Definition("counter", "Tokens of answers", ("mode",)),
    "comem_memory_vectors_total": Definition("counter", "Memory vectors in prompts"),
    "comem_memory_items_total": Definition(
        "counter", "Items whose memory a question needed, by where it came from; 'encoded' is the miss", ("source",)
    ),
    "comem_errors_total": Definition("counter", "Error replies by type", ("type",)),
    "comem_rejected_total": Definition("counter", "Requests answered 429, by reason", ("reason",)),
    # batches of the retriever and the memory encoder, steps of the reasoner
    "comem_batch_size": Definition("histogram", "Requests, or running answers, computed together", (), COUNTS),
    "comem_queue_depth": Definition("gauge", "Requests that wait in a replica"),
    # the reasoner
    "comem_running_answers": Definition("gauge", "Answers being generated in a replica"),
    "comem_cache_cells": Definition("gauge", "Cells (rows x columns) of the key-value cache in use"),
    "comem_answers_total": Definition("counter", "Ended answers by what ended them", ("ending",)),
    # the knowledge
    "comem_live_items": Definition("gauge", "Items added or replaced over HTTP and not folded into shards"),
    "comem_deleted_items": Definition("gauge", "Items deleted over HTTP and not yet left out of the shards"),
    "comem_unfolded_changes": Definition("gauge", "Changes that wait for jobs.compact"),
    "comem_changes_total": Definition("counter", "Acknowledged changes of the knowledge", ("change",)),
    "comem_journal_write_seconds": Definition(
        "histogram", "Seconds until a change is on disk, the sync included", (), SECONDS
    ),
}


class Recorder:
    """Records the metrics of this process. One is enough for a process; several share Ray's values."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = defaultdict(float)  # (name, tag values ...), outside Ray
        self._in_replica = _in_replica()
        self._metrics: dict[str, Any] = {}

    def add(self, name: str, value: float = 1, **tags: str) -> None:
        """Adds to a counter."""
        if self._in_replica:
            if value:
                self._metric(name).inc(value, tags=tags)
        else:
            self.values[(name, *tags.values())] += value

    def set(self, name: str, value: float) -> None:
        """Sets a gauge."""
        if self._in_replica:
            self._metric(name).set(value, tags={})
        else:
            self.values[(name,)] = value

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Puts a value into a histogram. Outside Ray the sum alone is kept."""
        if self._in_replica:
            self._metric(name).observe(value, tags=tags)
        else:
            self.values[(name, *tags.values())] += value

    def _metric(self, name: str) -> Any:
        if name not in self._metrics:
            d = DEFINITIONS[name]
            tags: Any = d.tags  # Ray's annotation wants exactly one
            if d.kind == "histogram":
                self._metrics[name] = ray_metrics.Histogram(name, d.description, list(d.bounds), tags)
            else:
                kind = ray_metrics.Counter if d.kind == "counter" else ray_metrics.Gauge
                self._metrics[name] = kind(name, d.description, tags)
        return self._metrics[name]


def _in_replica() -> bool:
    try:
        ray_serve.get_replica_context()
    except RayServeException:
        return False
    return True


def path_of(scope: Scope) -> str:
    """The path of a request as it is declared; `other` where none matched. For after the request."""
    return str(getattr(scope.get("route"), "path", "other"))


@dataclass
class IngressMetrics:
    """What the ingress counts."""

    recorder: Recorder = field(default_factory=Recorder)

    def finish_request(self, path: str, status: int, mode: str = "") -> None:
        """One HTTP request has been answered. `path`: that of `path_of`; `mode` where the request has one."""
        self.recorder.add("comem_requests_total", path=path, mode=mode, status=str(status))

    def count_error(self, type: str) -> None:
        """An error reply, or an error event of a stream, of this type."""
        self.recorder.add("comem_errors_total", type=type)

    def reject(self, reason: str) -> None:
        """A 429. `reason`: which limit."""
        self.recorder.add("comem_rejected_total", reason=reason)

    def set_open_requests(self, count: int) -> None:
        self.recorder.set("comem_open_requests", count)

    def observe_stages(self, timings_ms: Mapping[str, float], mode: str = "") -> None:
        """`timings_ms` of a reply: retrieve, memory, items, answer, total."""
        for stage, ms in timings_ms.items():
            self.recorder.observe("comem_stage_seconds", ms / 1000, stage=stage, mode=mode)

    def observe_first_token(self, seconds: float, mode: str) -> None:
        self.recorder.observe("comem_first_token_seconds", seconds, mode=mode)

    def add_usage(self, usage: Mapping[str, int], mode: str) -> None:
        """`usage` of a reply: prompt_tokens, memory_vectors, completion_tokens."""
        self.recorder.add("comem_prompt_tokens_total", usage["prompt_tokens"], mode=mode)
        self.recorder.add("comem_completion_tokens_total", usage["completion_tokens"], mode=mode)
        self.recorder.add("comem_memory_vectors_total", usage["memory_vectors"])

    def add_memory_items(self, source: MemorySource, count: int) -> None:
        """`store`: shards; `live`: the journal; `kept`: encoded for an earlier question; `encoded`: encoded now."""
        self.recorder.add("comem_memory_items_total", count, source=source)


@dataclass
class BatchMetrics:
    """What the deployment of a model counts whose requests go in batches."""

    recorder: Recorder = field(default_factory=Recorder)

    def observe_batch(self, size: int) -> None:
        self.recorder.observe("comem_batch_size", size)

    def set_waiting(self, count: int) -> None:
        self.recorder.set("comem_queue_depth", count)


@dataclass
class ReasonerMetrics:
    """What the reasoner counts."""

    recorder: Recorder = field(default_factory=Recorder)

    def observe_step(self, running: int, waiting: int, cells: int) -> None:
        """One token for each of the `running` answers. Records the batch only where there is one."""
        if running:
            self.recorder.observe("comem_batch_size", running)
        self.recorder.set("comem_running_answers", running)
        self.recorder.set("comem_queue_depth", waiting)
        self.recorder.set("comem_cache_cells", cells)

    def end_answer(self, ending: Ending) -> None:
        self.recorder.add("comem_answers_total", ending=ending)


@dataclass
class KnowledgeMetrics:
    """What the owner of the journal counts."""

    recorder: Recorder = field(default_factory=Recorder)

    def observe_write(self, seconds: float, changes: Mapping[Change, int]) -> None:
        """A write that is on disk, with its changes by kind."""
        self.recorder.observe("comem_journal_write_seconds", seconds)
        for change, count in changes.items():
            self.recorder.add("comem_changes_total", count, change=change)

    def set_counts(self, live: int, deleted: int, unfolded: int) -> None:
        self.recorder.set("comem_live_items", live)
        self.recorder.set("comem_deleted_items", deleted)
        self.recorder.set("comem_unfolded_changes", unfolded)
