"""The memory encoder as a deployment: for items whose memory is not stored."""

from __future__ import annotations

import numpy as np

from comem_ray.config import Config
from comem_ray.knowledge.images import open_image
from serve.deployments.model import ModelDeployment, TextAndImage, blank_image, device_of_replica
from serve.local_ports import listen_locally
from serve.messages import Generations, Refusal, pack_memory
from serve.scheduling.batching import Batcher
from serve.start import in_one_sentence


class MemoryEncoderDeployment(ModelDeployment):
    """Items in, their packed memory (K, Q, D) out."""

    def __init__(self, config: Config, _: Generations):
        from comem_ray.model.memory_encoder import MemoryEncoder, NotFinite

        self.not_finite = NotFinite
        listen_locally()
        with in_one_sentence():
            self.model = MemoryEncoder(config, device_of_replica())
        self.max_pixels = config.ingest.images.max_pixels
        self.batcher: Batcher[list[TextAndImage], np.ndarray] = Batcher(self._encode, config.api.max_batch, self._check)

    async def encode(self, items: list[TextAndImage]) -> np.ndarray | Refusal:
        try:
            reply: np.ndarray | Refusal = await self._reply(items)
        except self.not_finite as error:  # an item that jobs.encode_memory quarantined, for one
            return Refusal("not_finite", str(error))
        return reply

    def _check(self) -> None:
        self.model.encode([("A blank image.", blank_image())])

    def _encode(self, requests: list[list[TextAndImage]]) -> list[np.ndarray]:
        items = [(text, open_image(data, self.max_pixels)) for request in requests for text, data in request]
        ends = np.cumsum([len(request) for request in requests])
        return np.split(pack_memory(self.model.encode(items)), ends[:-1])
