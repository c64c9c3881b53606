"""The memory encoder's replica in this process: an item that fails, fails alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from support.serving import FinishedRun
from support.tiny import png

from comem_ray.knowledge.images import ImageError
from serve.deployments import memory_encoder as module
from serve.deployments.memory_encoder import MemoryEncoderDeployment
from serve.messages import Refusal
from serve.start import check_artifacts


@pytest.fixture
def encoder(run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> MemoryEncoderDeployment:
    monkeypatch.setattr(module, "device_of_replica", lambda: "cpu")  # asks Ray, which has no replica here
    return MemoryEncoderDeployment(run.config, check_artifacts(run.config))


async def gather(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_an_image_that_fails_the_memory_encoder_fails_alone(encoder: MemoryEncoderDeployment) -> None:
    calls = [encoder.encode([("text", data)]) for data in (png(1), b"not an image", png(2))]

    async def main() -> list[Any]:
        return await gather(*calls)

    first, broken, last = asyncio.run(main())
    assert isinstance(broken, ImageError)
    assert first.shape == last.shape == (1, *first.shape[1:])
    encoder.check_health()


def test_memory_that_is_not_finite_is_refused_for_its_request_alone(encoder: MemoryEncoderDeployment) -> None:
    forward, lengths = encoder.model.forward, []

    def overflow(sequences: Any) -> torch.Tensor:
        """As float16 does: infinite numbers for the items of one text."""
        lengths.extend(map(len, sequences))
        infinite = torch.tensor([len(s) > 100 for s in sequences])[:, None, None]
        return torch.where(infinite, torch.inf, forward(sequences))

    encoder.model.forward = overflow  # type: ignore[method-assign]

    async def main() -> list[Any]:
        return await gather(encoder.encode([("short", png(1))]), encoder.encode([("long " * 60, png(2))]))

    memory, refused = asyncio.run(main())
    assert isinstance(refused, Refusal)
    assert refused.type == "not_finite"
    assert memory.shape[0] == 1
    assert min(lengths) < 100 < max(lengths)
    encoder.check_health()
