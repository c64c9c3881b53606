"""The start of the application: what cannot be served is refused before anything is deployed, in one sentence.

Ray shows the text of its own kind of error alone, and 30 lines of traceback of any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.serve.exceptions import RayServeException

from comem_ray.artifacts import ArtifactError, Manifest, check_made_from, check_shard, load_manifest
from comem_ray.config import Config, ConfigError
from serve.messages import Generations

log = logging.getLogger("ray.serve")

STAGES = {"items": "ingest", "index": "build_index", "memory": "encode_memory"}  # by folder


class StartError(RayServeException, ValueError):
    """The application cannot start. The message says what is wrong, names the file, and says what would be right."""


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Turns a wrong configuration and a wrong artifact into a StartError."""
    try:
        yield
    except ArtifactError as error:
        log.error("cannot start: artifact: %s", error)
        raise StartError(f"artifact: {error}") from None
    except ConfigError as error:
        log.error("cannot start: configuration: %s", error)
        raise StartError(f"configuration: {error}") from None


def check_artifacts(config: Config) -> Generations:
    """Checks that the stages that are served are finished, belong together, and were made by these models.

    Returns their generations: the same in every replica, whatever runs after. A replica that starts again
    after the stages ran anew opens the generation that the others hold, not a mixture.

    The index's files are compared with their digests, which takes 0.8 s per GB, for it is read as a whole anyway. The
    others' sizes are: their bytes are compared when a replica first reads them. Raises ArtifactError, and ConfigError
    where a model is missing.
    """
    manifests = {name: load_manifest(config.folder(name), stage) for name, stage in STAGES.items()}
    check_made_from(**manifests)
    for name, manifest in manifests.items():
        _check_sizes(config.folder(name), manifest)
    for shard in manifests["index"].shards():
        check_shard(config.folder("index"), shard, STAGES["index"])
    _check_models(config, manifests["index"], manifests["memory"])
    folders = {name: manifest.generation for name, manifest in manifests.items()}
    return Generations(folders, manifests["items"].extra.get("live", 0))


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    for shard in manifest.shards():
        path = folder / shard.name
        size = path.stat().st_size if path.exists() else 0
        if size != shard.bytes:
            raise ArtifactError(
                f"{path} has {size:,} bytes, its record says {shard.bytes:,}. Run the stage '{manifest.stage}' again: "
                "it makes this file again"
            )


def _check_models(config: Config, index: Manifest, memory: Manifest) -> None:
    # Imported here, as in the replicas: they load torch.
    from comem_ray.memory_store import refuse_other_encoder
    from comem_ray.model.adapter import encoder_fingerprint
    from comem_ray.retrieval.clip import locate
    from comem_ray.retrieval.retriever import refuse_other_clip

    refuse_other_clip(config.folder("index"), index, locate(config.clip).fingerprint)
    refuse_other_encoder(config.folder("memory"), memory, encoder_fingerprint(config))
