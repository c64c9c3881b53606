"""The knowledge base as one process reads it: items and their memory, of one set of generations."""

from __future__ import annotations

from comem_ray.artifacts import ArtifactError, OpenStage
from comem_ray.config import Config
from comem_ray.knowledge.items import ItemStore
from comem_ray.memory_store import MemoryStore
from comem_ray.model.adapter import encoder_fingerprint
from serve.messages import Generations
from serve.start import STAGES, check_artifacts


def still_there(config: Config, generations: Generations) -> Generations:
    """`generations`, or what the folders hold now, where they were folded into newer ones and nobody reads them.

    For a replica that starts again: what it was deployed with may be gone. Raises ArtifactError where neither can be
    served.
    """
    try:
        stages = [OpenStage(config.folder(n), STAGES[n], g) for n, g in generations.folders.items()]
    except ArtifactError:
        return check_artifacts(config)
    del stages
    return generations


class Base:
    """Items, memory store, and a hold on the index of the same items.

    Raises ArtifactError where a stage is missing, damaged, or was made by something else.
    """

    def __init__(self, config: Config, generations: Generations):
        self.config, self.generations, folders = config, generations, generations.folders
        self.items = ItemStore(config.folder("items"), folders["items"])
        self.store = MemoryStore(config.folder("memory"), encoder_fingerprint(config), folders["memory"])
        # Held, not read: a retriever that starts again after a rerun finds the index of these items here.
        self._index = OpenStage(config.folder("index"), STAGES["index"], folders["index"])

    def missing(self) -> dict[str, str]:
        """Folders that are not there now (moved away, a filesystem that went away), by name, and what is missing."""
        folders = {name: self.config.folder(name) for name in STAGES}
        return {name: f"{f} is missing" for name, f in folders.items() if not (f / "manifest.json").is_file()}
