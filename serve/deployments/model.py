"""What the deployments of models have in common: work goes through a batcher, whose health is the replica's.

A replica imports the modules of its own model (torch, transformers, open_clip) in its constructor. The ingress, and the
process that builds the graph, start without them.
"""

from __future__ import annotations

import ctypes
from typing import Any

import ray
from PIL.Image import Image, new

from comem_ray.artifacts import ArtifactError
from comem_ray.knowledge.images import ImageError, open_image
from serve.http.checks import refused_image
from serve.http.errors import damaged, log
from serve.messages import Refusal
from serve.scheduling.batching import Batcher, is_out_of_memory

LARGE_IMAGE = 4_000_000  # pixels
_LIBC = ctypes.CDLL(None)
TextAndImage = tuple[str, bytes]  # of an item, the image encoded

OUT_OF_MEMORY = Refusal(
    "out_of_memory",
    "there is not enough memory for this request: send fewer items (top_k), a smaller image or a shorter question",
    status=500,
)


def device_of_replica() -> str:
    """The GPU that Ray gave this replica, else the CPU."""
    return "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"


def open_or_refuse(data: bytes, max_pixels: int) -> Image | Refusal:
    try:
        return open_image(data, max_pixels)
    except ImageError as error:
        return refused_image(error)


def give_back_memory(pixels: int) -> None:
    """Returns what large images took to the system: the C library would keep most of it for the next one."""
    if pixels >= LARGE_IMAGE and hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def blank_image() -> Image:
    """Of the requests that check whether a model works at all."""
    return new("RGB", (32, 32))


class ModelDeployment:
    """A model behind a batcher."""

    batcher: Batcher[Any, Any]

    async def _reply(self, request: Any, logged: bool = True) -> Any:
        """The reply of the batcher. What only a person can mend here is a Refusal too; other exceptions pass."""
        try:
            return await self.batcher(request, logged)
        except ArtifactError as error:
            return damaged(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.error("out of memory with one request alone: %s", type(error).__name__)
            return OUT_OF_MEMORY

    async def ready(self) -> bool:
        return True

    def check_health(self) -> None:
        self.batcher.check()
