"""The backbones of a small training run of the example, for the tests of its stages."""

from __future__ import annotations

from comem_ray.model.backbone import Backbone
from examples.countries.train.image_cache import CachedImageBackbone
from examples.countries.train.notes import Codebook
from examples.countries.train.stages import Run


def load_backbones(run: Run, *names: str) -> tuple[Backbone, CachedImageBackbone, Codebook]:
    """The backbone with the trained parts `names`, the same model for cached images, and the codebook of its notes."""
    backbone = run.load(run.backbone(*names))
    return backbone, *run.with_image_cache(backbone)
