"""How the next token of each answer is chosen, and what ends an answer: penalty of repeated tokens, greedy or sampled.

Rows are independent: each has its own settings, its own prompt and its own random numbers.

Shapes: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from comem_ray.finite import finite_rows
from comem_ray.prompts import Sampling

OnText = Callable[[int, str], None]
"""Called with the index of a prompt and the next piece of its answer."""

COLDEST = 1e-6  # a lower temperature would divide by zero in float32; this one is as good as greedy


def stop_ids(generation_config: Any, tokenizer: Any, turn_end: int) -> list[int]:
    """The ids that end an answer: the end of our own turn, and the control tokens that the checkpoint names.

    A generation_config.json may be missing, or be another model's. An id of it that is ordinary text here would cut
    answers short, so it does not count.
    """
    named = generation_config.eos_token_id
    named = named if isinstance(named, (list, tuple)) else [named]
    control = set(tokenizer.added_tokens_encoder.values()) | set(tokenizer.all_special_ids)
    return sorted({turn_end, *(i for i in named if isinstance(i, int) and i in control)})


class PromptRepetitionPenalty:
    """Divides positive logits, and multiplies negative ones, of every token that occurred before (Keskar et al. 2019,
    arXiv 1909.05858), as `RepetitionPenaltyLogitsProcessor` of transformers does with a prompt of ids.

    `prompts` are the ids of each prompt. All count: text, control tokens and image tokens, as in stock `generate`.
    Memory is vectors and has no ids; padding does not count. A penalty of 1 keeps no record of tokens.
    """

    def __init__(self, penalty: float, prompts: Sequence[Sequence[int]], vocabulary: int, device: torch.device):
        self.penalty = penalty
        width = vocabulary if penalty != 1 else 0
        self.occurred = torch.zeros(len(prompts), width, dtype=torch.bool, device=device)  # (B, V)
        if width:
            for row, ids in zip(self.occurred, prompts, strict=True):
                row[torch.tensor(ids, dtype=torch.long, device=device)] = True

    def __call__(self, scores: Tensor) -> Tensor:
        """New logits (B, V) of logits (B, V)."""
        if self.penalty == 1:
            return scores
        penalised = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(self.occurred, penalised, scores)

    def add(self, tokens: Tensor) -> None:
        """One new token of each row: (B,) int64."""
        if self.penalty != 1:
            self.occurred.scatter_(1, tokens[:, None], True)


class Draw:
    """Draws the tokens of one answer with random numbers of its own, or takes the best one each time (greedy)."""

    def __init__(self, sampling: Sampling, device: torch.device):
        self.greedy = sampling.temperature == 0
        self._warpers: list[LogitsProcessor] = []
        if not self.greedy:
            self._warpers.append(TemperatureLogitsWarper(max(float(sampling.temperature), COLDEST)))
            if sampling.top_p < 1:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))
            seed = int(torch.randint(2**63 - 1, ())) if sampling.seed is None else sampling.seed
            self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, scores: Tensor) -> Tensor:
        """A token (1, 1) int64 for logits (1, V), float32."""
        if self.greedy:
            return scores.argmax(-1, keepdim=True)
        scores = scores - scores.max()  # the same probabilities, and no overflow at a low temperature
        for warper in self._warpers:
            scores = warper(None, scores)  # type: ignore[arg-type]
        return torch.multinomial(scores.softmax(-1), 1, generator=self._generator)


def choose(logits: Tensor, penalty: PromptRepetitionPenalty, draws: Sequence[Draw]) -> tuple[list[int], list[bool]]:
    """The next token of each row for logits (B, V), and whether the row's logits were all finite.

    Notes the tokens in `penalty`. The token of a row that is not finite means nothing; the other rows are as ever.
    """
    finite = finite_rows(logits)
    scores = penalty(torch.where(finite[:, None], logits.float(), 0))
    tokens = scores.argmax(-1)
    for row, draw in enumerate(draws):
        if not draw.greedy:
            tokens[row] = draw(scores[row : row + 1])[0, 0]
    penalty.add(tokens)
    chosen, are_finite = torch.stack([tokens, finite.long()]).tolist()  # one wait for the device
    return chosen, [bool(flag) for flag in are_finite]
