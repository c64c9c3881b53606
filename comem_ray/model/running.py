"""Answers in the making, and the loop that makes their tokens: rows that share one padded cache.

It calls the stock language model, which takes embeddings and positions on one or three axes; continuous batching of
transformers (5.23: `add_request` takes token ids, positions are one-dimensional) takes neither. No state of the model
is used, so several groups of rows may run on one model in turn.

Shapes: B rows, L tokens of the longest prompt, D width, W width of input embeddings (Backbone.embed), A axes of
positions, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from comem_ray.finite import NotFinite
from comem_ray.model.answer_text import AnswerText
from comem_ray.model.backbone import Backbone
from comem_ray.model.decoding import Draw, PromptRepetitionPenalty, choose
from comem_ray.model.padded_cache import PaddedCache
from comem_ray.model.sequences import Batch, TokenSequence


@dataclass(frozen=True)
class Completion:
    """The answer to a Prompt, with its tokens."""

    text: str
    prompt_tokens: int  # image tokens included, memory not
    memory_vectors: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"]


class RunningAnswer:
    """The answer to one prompt while it is made. `outcome` is None until it has ended."""

    def __init__(self, sequence: TokenSequence, limit: int, draw: Draw, text: AnswerText, stop_ids: Sequence[int]):
        self.ids, self.limit, self.draw = sequence.ids, limit, draw
        self.prompt_tokens, self.memory_vectors = len(sequence.ids), sequence.memory
        self.tokens: list[int] = []  # of the answer; the last one is not yet in the cache
        self.outcome: Completion | NotFinite | None = None
        self._text, self._stop_ids = text, stop_ids

    @property
    def text(self) -> str:
        """Decoded so far and safe to pass on: no incomplete character, nothing that may become a stop string."""
        return self._text.text

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens)

    @property
    def prompt_columns(self) -> int:
        """Columns of the cache that the prompt has, memory included."""
        return self.memory_vectors + self.prompt_tokens

    @property
    def columns_at_most(self) -> int:
        """Columns of the cache that the row has at its last token."""
        return self.prompt_columns + self.limit

    def take(self, token: int) -> None:
        """One more token, which may be the last."""
        self.tokens.append(token)
        stopped = token in self._stop_ids
        if not stopped:
            self._text.add(token)
        if stopped or self._text.stopped or self.completion_tokens >= self.limit:
            if not self._text.stopped:
                self._text.end()
            reason: Literal["stop", "length"] = "stop" if stopped or self._text.stopped else "length"
            self.outcome = Completion(
                self.text, self.prompt_tokens, self.memory_vectors, self.completion_tokens, reason
            )


class RunningRows:
    """Answers that run together, one row of a padded cache each. Made by a forward pass over their prompts."""

    def __init__(
        self,
        backbone: Backbone,
        batch: Batch,
        embeds: Tensor,
        answers: Sequence[RunningAnswer],
        penalty: float,
        not_finite: Callable[[], NotFinite],
    ):
        """Prompts as a left-padded batch with embeddings (B, L, W). Draws the first token of each."""
        self.backbone, self.answers, self.not_finite = backbone, list(answers), not_finite
        self.cache = PaddedCache([answer.prompt_columns for answer in answers])
        self._positions = backbone.cpu_positions(batch)
        self._axes = len(self._positions)
        logits = self._forward(embeds, self._positions)
        self._positions = self._positions.amax(dim=(0, 2)) + 1  # (B,) int64: of each row's next token
        prompts = [answer.ids for answer in answers]
        self.penalty = PromptRepetitionPenalty(penalty, prompts, logits.shape[1], logits.device)
        self._choose(logits)

    def step(self) -> None:
        """One token for every row. Rows that end leave the cache at once."""
        tokens = torch.tensor([[answer.tokens[-1]] for answer in self.answers], device=self.backbone.device)
        self.cache.grow()
        embeds = self.backbone.model.get_input_embeddings()(tokens)
        logits = self._forward(embeds, self._positions[None, :, None].expand(self._axes, -1, 1))
        self._positions = self._positions + 1
        self._choose(logits)

    def join(self, other: RunningRows) -> None:
        """Appends the rows of `other`, which is used up. An exception leaves these rows as they were."""
        occurred = torch.cat([self.penalty.occurred, other.penalty.occurred])
        positions = torch.cat([self._positions, other._positions])
        self.cache.join(other.cache)
        self.penalty.occurred, self._positions = occurred, positions
        self.answers += other.answers

    def drop(self, answers: Iterable[RunningAnswer]) -> None:
        """Takes these answers out of the cache, as far as they are in it."""
        dropped = {id(answer) for answer in answers}
        self._keep([row for row, answer in enumerate(self.answers) if id(answer) not in dropped])

    def _forward(self, embeds: Tensor, positions: Tensor) -> Tensor:
        """Logits (B, V) after the last of the new columns: embeddings (B, new, W), positions (A, B, new)."""
        device = self.backbone.device
        mask = self.cache.mask(device)
        hidden = self.backbone.run_layers(embeds, mask, positions.to(device), self.cache.layers)
        return self.backbone.model.lm_head(hidden[:, -1:])[:, -1]

    def _choose(self, logits: Tensor) -> None:
        tokens, finite = choose(logits, self.penalty, [answer.draw for answer in self.answers])
        for answer, token, is_finite in zip(self.answers, tokens, finite, strict=True):
            if is_finite:
                answer.take(token)
            else:
                answer.outcome = self.not_finite()
        self._keep([row for row, answer in enumerate(self.answers) if answer.outcome is None])

    def _keep(self, rows: Sequence[int]) -> None:
        if len(rows) == len(self.answers):
            return
        if rows:
            self.cache.keep(rows)
        else:
            self.cache = PaddedCache([])
        index = torch.tensor(rows, dtype=torch.long)
        self._positions = self._positions[index]
        self.penalty.occurred = self.penalty.occurred[index.to(self.penalty.occurred.device)]
        self.answers = [self.answers[row] for row in rows]
