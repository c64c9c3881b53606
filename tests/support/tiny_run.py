"""A finished run of items, embeddings and index/ in one process: the actors of the jobs are plain classes."""

from collections.abc import Sequence

from support.tiny import write_items

from comem_ray.artifacts import Manifest, StageFolder, load_manifest
from comem_ray.config import Config
from comem_ray.knowledge.items import item_shards
from comem_ray.model.adapter import encoder_fingerprint
from comem_ray.retrieval.clip import locate
from jobs.build_index import BuildIndex
from jobs.embed_items import EmbedShard
from jobs.encode_memory import EncodeShard
from jobs.item_shards import ShardTask


def write_run(config: Config, sizes: list[int], first: Sequence[int] = ()) -> list[str]:
    """Items in shards of the given sizes (`first`, then 0, 1, ...), embeddings and index. Returns the ids in order."""
    ids = write_items(config.folder("items"), sizes, first)
    clip, texts = locate(config.clip).fingerprint, config.clip.texts
    stage = StageFolder(config.folder("embeddings"), "embed_items", {"clip": clip, "width": 24, "texts": texts})
    items = make_shards(config, stage, EmbedShard(config, stage))
    embeddings = load_manifest(config.folder("embeddings"), "embed_items")
    stage = StageFolder(config.folder("index"), "build_index", {"clip": clip})
    kinds = ["image", "text"] if texts else ["image"]
    actor = BuildIndex(config, stage)
    for unit in ["items", *kinds]:
        actor({"unit": [unit], "inputs": [""]})
    stage.close(["items", *kinds], {"kinds": kinds, "probed": True}, {"items": items, "embeddings": embeddings})
    return ids


def make_shards(config: Config, stage: StageFolder, actor) -> Manifest:
    """Makes the shards of all items by a job's own actor and closes the stage. Returns the items' manifest."""
    items = load_manifest(config.folder("items"), "ingest")
    shards = item_shards(items)
    for unit, shard in shards.items():
        row = ShardTask(unit, shard.sha256, shard, []).row()
        actor({name: [value] for name, value in row.items()})
    stage.close(shards, made_from={"items": items})
    return items


def write_memory_stage(config: Config) -> None:
    """The memory of a run's items, by the job's own actor."""
    identity = {"encoder": encoder_fingerprint(config)}
    stage = StageFolder(config.folder("memory"), "encode_memory", identity)
    make_shards(config, stage, EncodeShard(config, stage))
