"""The memory encoder: knowledge items in, memory out, Q vectors of width D per item.

The backbone reads an item's turn with the adapter on. The Q-Former compresses the hidden states after the final norm.
Items never attend to each other, so their memory can be computed ahead of time and reused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from comem_ray.config import Config
from comem_ray.finite import NotFinite, dtype_name, finite_rows, right_precision
from comem_ray.model.adapter import Adapter, attach_adapter
from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import item_turn


class MemoryEncoder:
    """Backbone with the adapter on, then the Q-Former.

    `backbone` and `adapter` may be given to share one copy of the weights with a Reasoner in the same process.
    """

    def __init__(
        self, config: Config, device: str = "cpu", backbone: Backbone | None = None, adapter: Adapter | None = None
    ):
        self.backbone = backbone or load_backbone(config.backbone, device)
        self.adapter = adapter or attach_adapter(config.adapter, self.backbone)
        self.batch_tokens = config.memory.batch_tokens

    def sequence(self, text: str, image: Image) -> TokenSequence:
        """The tokenised turn of one item."""
        sequencer = self.backbone.sequencer
        return sequencer.sequence(item_turn(text, image, sequencer.chat))

    def forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Memory (items, Q, D) of items encoded together, with gradients if they are enabled."""
        batch = self.backbone.sequencer.batch(sequences, padding="right")
        with adapter_enabled(self.adapter.lora):
            embeds = self.backbone.embed(batch, self.backbone.image_features(batch))
            hidden = self.backbone.hidden_states(batch, embeds)
        return self.adapter.qformer(hidden, batch.attention_mask.bool().to(hidden.device))

    @torch.inference_mode()
    def encode_unchecked(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """As `encode_sequences`, but what is not finite is left to the caller, who loses no other item by it."""
        queries, width = self.adapter.qformer.queries.shape
        memory = torch.empty(len(sequences), queries, width, dtype=torch.bfloat16)
        for group in length_buckets([len(s) for s in sequences], self.batch_tokens):
            memory[group] = self.forward([sequences[i] for i in group]).to("cpu", torch.bfloat16)
        return memory

    def encode_sequences(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Memory (items, Q, D), bfloat16 on the CPU, in the order of `sequences`; batches hold similar lengths.

        Raises NotFinite, with the positions in `sequences`, where the memory of items is NaN or infinite.
        """
        memory = self.encode_unchecked(sequences)
        if failed := (~finite_rows(memory)).nonzero().flatten().tolist():
            dtype = self.backbone.dtype
            raise NotFinite(
                f"the memory of {len(failed)} of {len(sequences)} items is NaN or infinite in {dtype_name(dtype)}: "
                f"{right_precision(dtype, 'backbone.precision')}",
                failed,
            )
        return memory

    def encode(self, items: Sequence[tuple[str, Image]]) -> Tensor:
        """Memory (items, Q, D), bfloat16 on the CPU, of items given as (text, image).

        Raises NotFinite, with the positions in `items`, where the memory of items is NaN or infinite.
        """
        return self.encode_sequences([self.sequence(text, image) for text, image in items])


def length_buckets(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of sequences in groups of similar length. A padded group has at most `batch_tokens` tokens.

    A longer sequence makes a group of its own. The longest come first, so memory runs out early or never.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if group and lengths[group[0]] * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
