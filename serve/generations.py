"""Which generation of the knowledge base an application serves: fixed when it is deployed, the same in every replica.

A replica that starts again after the stages ran anew opens the generation that the others hold, not a mixture.
"""

from __future__ import annotations

from comem_ray.artifacts import check_made_from, load_manifest
from comem_ray.config import Config

STAGES = {"items": "ingest", "index": "build_index", "memory": "encode_memory"}
"""The stages that are served, by folder."""


def current_generations(config: Config) -> dict[str, str]:
    """The generations, by folder, that the stages of a run closed with last.

    Raises ArtifactError where a stage is unfinished, or was not made from these items.
    """
    manifests = {name: load_manifest(config.folder(name), stage) for name, stage in STAGES.items()}
    check_made_from(**manifests)
    return {name: manifest.generation for name, manifest in manifests.items()}
