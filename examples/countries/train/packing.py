"""Packs several questions about the same items into one sequence: their common beginning is computed once.

Prompts that begin alike become their common beginning, then one branch per prompt, its rest. A token of a branch
attends to the beginning and to its own branch alone, at the positions that it has in its own prompt. Every hidden
state, and so every loss and gradient, is that of the prompts one by one.

Shapes: B packed sequences, L tokens of the longest, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from comem_ray.model.backbone import Backbone
from comem_ray.model.sequences import Batch, TokenSequence

SHARED = -1  # the branch of the common beginning


@dataclass(frozen=True)
class PackedPrompts:
    """Prompts packed into one sequence."""

    sequence: TokenSequence
    branches: list[int]  # of every token, memory included: SHARED, or the number of the prompt
    positions: Tensor  # (3, tokens) int64, each token's own

    def __len__(self) -> int:
        return len(self.branches)

    def end(self, number: int) -> int:
        """One past the last token of prompt `number`."""
        return len(self.branches) - self.branches[::-1].index(number)

    def indices(self, number: int, token: int) -> list[int]:
        """Indices, memory included, of a token id in the branch of prompt `number`."""
        tokens = enumerate(zip(self.branches[self.sequence.memory :], self.sequence.ids, strict=True))
        return [self.sequence.memory + n for n, (branch, i) in tokens if branch == number and i == token]


def pack(backbone: Backbone, prompts: Sequence[TokenSequence], shared_images: int) -> PackedPrompts:
    """Packs prompts whose first `shared_images` images, with all before and between them, are the same.

    Raises ValueError where they do not begin with the same memory and images.
    """
    memory = prompts[0].memory
    if any(p.memory != memory or len(p.pixels) < shared_images for p in prompts):
        raise ValueError("prompts to pack must begin with the same memory and images")
    # At least one token of each prompt stays its own, so that equal prompts have a branch each too.
    equal = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*(p.ids[:-1] for p in prompts), strict=False)))
    start = _before_own_images(backbone, prompts[0], shared_images, equal)
    batch = backbone.sequencer.batch([replace(p, pixels=[]) for p in prompts], padding="right")
    rope = backbone.cpu_positions(batch)
    branches, positions = [SHARED] * (memory + start), [rope[:, 0, : memory + start]]
    for number, prompt in enumerate(prompts):
        branches += [number] * (len(prompt.ids) - start)
        positions.append(rope[:, number, memory + start : len(prompt)])
    own = [(p.pixels[shared_images:], p.grids[shared_images:]) for p in prompts]
    sequence = TokenSequence(
        prompts[0].ids[:start] + [i for p in prompts for i in p.ids[start:]],
        prompts[0].pixels[:shared_images] + [x for pixels, _ in own for x in pixels],
        prompts[0].grids[:shared_images] + [x for _, grids in own for x in grids],
        memory,
    )
    return PackedPrompts(sequence, branches, torch.cat(positions, dim=1))


def _before_own_images(backbone: Backbone, prompt: TokenSequence, shared_images: int, equal: int) -> int:
    """Where the branches begin: no later than the first image token of an image that is not shared."""
    merged = backbone.sequencer.image_processor.merge_size**2
    count, shared = 0, sum(rows * columns // merged for _, rows, columns in prompt.grids[:shared_images])
    for n, token in enumerate(prompt.ids[:equal]):
        if token == backbone.sequencer.image_token_id:
            count += 1
            if count > shared:
                return n
    return equal


def packed_hidden_states(backbone: Backbone, batch: Batch, embeds: Tensor, packed: Sequence[PackedPrompts]) -> Tensor:
    """Hidden states (B, L, D) after the final norm. `batch` and `embeds` are of the packed sequences, left-padded."""
    length = batch.input_ids.shape[1]
    branch = torch.full((len(packed), length), SHARED - 1)  # padding attends to itself alone
    positions = torch.zeros(3, len(packed), length, dtype=torch.long)
    for row, prompts in enumerate(packed):
        branch[row, length - len(prompts) :] = torch.tensor(prompts.branches)
        positions[:, row, length - len(prompts) :] = prompts.positions
    device = embeds.device
    branch = branch.to(device)
    real = branch >= SHARED
    visible = (branch[:, :, None] == branch[:, None, :]) | (branch == SHARED)[:, None, :]
    visible &= torch.ones(length, length, dtype=torch.bool, device=device).tril() & real[:, None, :]
    visible |= torch.eye(length, dtype=torch.bool, device=device)
    mask = torch.zeros(visible.shape, dtype=embeds.dtype, device=device)
    mask = mask.masked_fill(~visible, torch.finfo(embeds.dtype).min)
    return backbone.model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=mask[:, None],
        position_ids=positions.to(device),
        use_cache=False,
    ).last_hidden_state
