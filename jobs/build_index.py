"""The FAISS indexes of the knowledge base, one over the items' images and one over their texts.

    ray job submit --working-dir . -- python -m jobs.build_index --config configs/demo.yaml

One worker builds. It streams the embeddings shard by shard and holds only the index, within index.max_memory_gb.
The units are `items` (ids and languages, in the order of the vectors), `image` and `text` (one FAISS file each), and
the recall@10 of each index against exact search on held-out queries (comem_ray/retrieval/recall.py says which). A
saved index is tried in a process of its own before it counts, for not every factory can do all that a search needs
(comem_ray/retrieval/probe.py). A change of index.search tries and measures again and builds nothing. Search times
change from run to run, so they are in the summary and not in index/.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq

from comem_ray.artifacts import (
    ArtifactError,
    Manifest,
    OpenStage,
    StageFolder,
    check_made_from,
    fingerprint,
    load_manifest,
    write_json,
)
from comem_ray.config import Config, ConfigError
from comem_ray.knowledge.items import STAGE as ITEMS
from comem_ray.knowledge.items import item_shards
from comem_ray.retrieval.embeddings import Embeddings
from comem_ray.retrieval.index import (
    FACTORIES,
    IDS,
    LANGUAGES,
    STAGE,
    ItemIndex,
    build_index,
    index_file,
    index_path,
    save_array,
    save_index,
)
from comem_ray.retrieval.probe import index_fault
from comem_ray.retrieval.recall import (
    RECALL_AT,
    exact_nearest,
    held_out_queries,
    recall,
    search_milliseconds,
    training_positions,
)
from jobs.common import Summary, main, run_units


def run(config: Config) -> Summary:
    """Writes index/ under the run's root. Raises ArtifactError where the embeddings are not those of the items."""
    embeddings, items = Embeddings(config.folder("embeddings")), load_manifest(config.folder("items"), ITEMS)
    _refuse_stale(embeddings, items)
    index = config.index
    identity = {
        "clip": embeddings.clip,
        "factory": index.factory,
        "training_items": index.training_items,
        "seed": config.seed,
    }
    stage = StageFolder(config.folder("index"), STAGE, identity)
    vectors = embeddings.manifest.fingerprint
    builds = {"items": vectors, **dict.fromkeys(embeddings.kinds, vectors)}
    measured = fingerprint([vectors, index.search, index.recall_queries, "probed"])
    measures = {f"{kind}.recall": measured for kind in embeddings.kinds}
    kept = stage.finished({**builds, **measures})
    try:
        for units in (builds, measures):
            todo = [{"unit": unit, "inputs": digest} for unit, digest in units.items() if unit not in kept]
            run_units(todo, BuildIndex, (config, stage, list(kept)), index.workers, STAGE)
    except ConfigError:
        _forget_refused(stage, embeddings.kinds)
        raise
    figures = {kind: _figures(stage, kind) for kind in embeddings.kinds}
    extra = {"kinds": list(embeddings.kinds), "recall": figures, "probed": True}
    manifest = stage.close([*builds, *measures], extra, {"items": items, "embeddings": embeddings.manifest})
    return _summary(config, embeddings, manifest, figures)


def _forget_refused(stage: StageFolder, kinds: Sequence[str]) -> None:
    """Takes back what the folder was started with, if it holds no index: else the mended factory would be refused."""
    if not {record.unit for record in stage.records()} & set(kinds):
        (stage.path / "stage.json").unlink(missing_ok=True)


def _refuse_stale(embeddings: Embeddings, items: Manifest) -> None:
    check_made_from(embeddings=embeddings.manifest, items=items)
    embedded = {record.unit: record.inputs for record in embeddings.manifest.records}
    if embedded != {unit: shard.sha256 for unit, shard in item_shards(items).items()}:  # of version 0.2
        raise ArtifactError(
            f"the embeddings ({len(embeddings):,} items in {len(embedded)} shards) are not those of the items "
            f"({len(items.records)} shards): run jobs.embed_items with this configuration first"
        )


def _figures(stage: StageFolder, kind: str) -> dict[str, Any]:
    path = stage.find(f"{kind}.recall.json")
    assert path is not None
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def _summary(config: Config, embeddings: Embeddings, manifest: Manifest, figures: dict[str, Any]) -> Summary:
    summary: Summary = {"items": len(embeddings), "width": embeddings.width, "factory": config.index.factory}
    for kind in embeddings.kinds:
        shard = manifest.shard(index_file(kind))
        summary[f"{kind} bytes"] = shard.bytes if shard else 0
        summary[f"{kind} recall@{RECALL_AT}"] = figures[kind][f"recall_at_{RECALL_AT}"]
        summary[f"{kind} recall queries"] = figures[kind]["queries"]
        times = _times_file(config, kind)
        if times.exists():  # measured together with the recall, maybe in an earlier run
            summary.update({f"{kind} {k}": v for k, v in json.loads(times.read_text()).items()})
    return summary


def _times_file(config: Config, kind: str) -> Path:
    return config.folder("summaries") / f"{STAGE}.{kind}.json"


class BuildIndex:
    """The actor: one unit per call. An index of the units `kept` of an earlier run is tried before it is measured."""

    def __init__(self, config: Config, stage: StageFolder, kept: Collection[str] = ()):
        self._config, self._stage, self._kept = config, stage, kept
        self._embeddings = Embeddings(config.folder("embeddings"))
        total, index = len(self._embeddings), config.index
        self._training = training_positions(total, index.training_items, config.seed)
        # A fixed number, for sums depend on it in their last digits.
        faiss.omp_set_num_threads(index.workers.thread_count)

    def __call__(self, batch: dict[str, Any]) -> None:
        unit, inputs = str(batch["unit"][0]), str(batch["inputs"][0])
        if unit == "items":
            files = self._write_items()
        elif unit.endswith(".recall"):
            files = self._measure(unit.removesuffix(".recall"))
        else:
            files = self._build(unit)
        self._stage.commit(unit, inputs, files, {"items": len(self._embeddings)} if unit == "items" else {})

    def _write_items(self) -> dict[str, int]:
        items = OpenStage(self._config.folder("items"), ITEMS)
        ids, languages = self._embeddings.item_ids(), dict[str, str]()
        for shard in item_shards(items.manifest).values():
            table = pq.read_table(items.path(shard), columns=["item_id", "language"])
            languages.update(zip(table["item_id"].to_pylist(), table["language"].to_pylist(), strict=True))
        # An item without embeddings (embeddings/rejected/) is not in the index.
        save_array(self._stage.path / IDS, np.array(ids, np.bytes_))
        save_array(self._stage.path / LANGUAGES, np.array([languages[i] for i in ids], np.bytes_))
        return dict.fromkeys((IDS, LANGUAGES), len(ids))

    def _build(self, kind: str) -> dict[str, int]:
        embeddings, config = self._embeddings, self._config.index

        def sample(count: int) -> np.ndarray:
            return embeddings.rows(kind, self._training[:count])

        index = build_index(config, embeddings.width, len(embeddings), sample, embeddings.blocks(kind))
        path = self._stage.path / index_file(kind)
        save_index(path, index)
        del index  # the process that tries it holds a copy of its own
        try:
            self._refuse_partial(path)
        except ConfigError:
            path.unlink()
            raise
        return {index_file(kind): len(embeddings)}

    def _refuse_partial(self, path: Path) -> None:
        """Raises ConfigError where the index in this file cannot do all that a search needs."""
        if fault := index_fault(path, self._config.index.search):
            raise ConfigError(
                f"index.factory {self._config.index.factory!r} makes an index that cannot {fault}. {FACTORIES}"
            )

    def _measure(self, kind: str) -> dict[str, int]:
        config, embeddings, seed = self._config.index, self._embeddings, self._config.seed
        if kind in self._kept:
            self._refuse_partial(index_path(self._stage, kind))
        index = ItemIndex.load(self._stage, kind, config.search)
        queries = held_out_queries(embeddings, kind, self._training, config.recall_queries, seed)
        exact = exact_nearest(queries, embeddings.blocks(kind), RECALL_AT)
        recall_at = recall(index.nearest(queries, RECALL_AT)[1], exact)
        name = f"{kind}.recall.json"
        write_json(self._stage.path / name, {"queries": len(queries), f"recall_at_{RECALL_AT}": round(recall_at, 4)})
        p50, p99 = search_milliseconds(index, queries, RECALL_AT)
        times = {"search ms p50": round(p50, 3), "search ms p99": round(p99, 3)}
        write_json(_times_file(self._config, kind), times)
        return {name: len(queries)}


if __name__ == "__main__":
    main(STAGE, run, __doc__)
