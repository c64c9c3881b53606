"""A finished run of items, embeddings and index/ in one process: the actors of the jobs are plain classes."""

from support.tiny import write_items

from comem_ray.artifacts import StageFolder
from comem_ray.config import Config
from comem_ray.model.adapter import encoder_fingerprint
from comem_ray.retrieval.clip import locate
from jobs.build_index import BuildIndex
from jobs.embed_items import EmbedShard
from jobs.encode_memory import EncodeShard


def write_run(config: Config, sizes: list[int]) -> list[str]:
    """Items in shards of the given sizes, their embeddings and their index. Returns the ids in order."""
    ids = write_items(config.folder("items"), sizes)
    clip, texts = locate(config.clip).fingerprint, config.clip.texts
    stage = StageFolder(config.folder("embeddings"), "embed_items", {"clip": clip, "width": 24, "texts": texts})
    units = [f"part-0000-{i:06d}" for i in range(len(sizes))]
    work(stage, EmbedShard(config, stage), units)
    stage.close(units)
    stage = StageFolder(config.folder("index"), "build_index", {"clip": clip})
    kinds = ["image", "text"] if texts else ["image"]
    work(stage, BuildIndex(config, stage), ["items", *kinds])
    stage.close(["items", *kinds], {"kinds": kinds})
    return ids


def work(stage: StageFolder, actor, units: list[str]) -> None:
    for unit in units:
        actor({"unit": [unit], "inputs": [""]})


def write_memory_stage(config: Config, sizes: list[int]) -> None:
    """The memory of a run's items, by the job's own actor."""
    identity = {"encoder": encoder_fingerprint(config)}
    stage = StageFolder(config.folder("memory"), "encode_memory", identity)
    units = [f"part-0000-{i:06d}" for i in range(len(sizes))]
    work(stage, EncodeShard(config, stage), units)
    stage.close(units)
