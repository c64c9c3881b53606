"""What `generate` of transformers is given to decode a batch of prompts that go in as embeddings.

`generate` sees no ids of such a prompt. So what depends on them, or on one row alone, is here: the penalty of repeated
tokens, the rows that are not finite, each row's own limit, and the text as it is made.

Shapes: B prompts, V tokens of the vocabulary, t tokens decoded so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from comem_ray.finite import finite_rows

OnText = Callable[[int, str], None]
"""Called with the index of a prompt and the next piece of its answer."""


def stop_ids(generation_config: Any, tokenizer: Any, turn_end: int) -> list[int]:
    """The ids that end an answer: the end of our own turn, and the control tokens that the checkpoint names.

    A generation_config.json may be missing, or be another model's. An id of it that is ordinary text here would cut
    answers short, so it does not count.
    """
    named = generation_config.eos_token_id
    named = named if isinstance(named, (list, tuple)) else [named]
    control = set(tokenizer.added_tokens_encoder.values()) | set(tokenizer.all_special_ids)
    return sorted({turn_end, *(i for i in named if isinstance(i, int) and i in control)})


class PromptRepetitionPenalty(LogitsProcessor):
    """Divides positive logits, and multiplies negative ones, of every token that occurred before (Keskar et al. 2019,
    arXiv 1909.05858), as `RepetitionPenaltyLogitsProcessor` of transformers does with a prompt of ids.

    `prompts` are the ids of each prompt. All count: text, control tokens and image tokens, as in stock `generate`.
    Memory is vectors and has no ids; padding does not count.
    """

    def __init__(self, penalty: float, prompts: Sequence[Sequence[int]]):
        self.penalty, self.prompts = penalty, prompts
        self.occurred: Tensor | None = None  # (B, V) bool

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """New logits (B, V) of logits `scores` (B, V), after the decoded `input_ids` (B, t)."""
        if self.occurred is None:
            self.occurred = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
            for row, ids in zip(self.occurred, self.prompts, strict=True):
                row[torch.tensor(ids, dtype=torch.long, device=scores.device)] = True
        self.occurred.scatter_(1, input_ids, True)
        penalised = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(self.occurred, penalised, scores)


class FiniteRows(LogitsProcessor):
    """Notes the rows whose logits were not finite, and ends them; the other rows go on."""

    def __init__(self, rows: int, device: torch.device):
        self.failed = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, V) with zeros in failed rows, from which a token can be drawn."""
        self.failed |= ~finite_rows(scores)
        return torch.where(self.failed[:, None], torch.zeros_like(scores), scores)


class RowLimits(StoppingCriteria):
    """Ends each row at its own number of new tokens, and those that failed at once.

    `input_ids` has new tokens only: the prompt is embeddings.
    """

    def __init__(self, limits: Sequence[int], finite: FiniteRows):
        self.limits, self.finite = torch.tensor(limits), finite

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return (self.limits <= input_ids.shape[1]).to(input_ids.device) | self.finite.failed


class Decoder(BaseStreamer):
    """Collects the tokens of a batch as `generate` makes them, and passes text on in whole characters."""

    def __init__(
        self, tokenizer: Any, stop_ids: Sequence[int], limits: Sequence[int], finite: FiniteRows, on_text: OnText | None
    ):
        self.tokenizer, self.stop_ids, self.limits = tokenizer, set(stop_ids), limits
        self.finite, self.on_text = finite, on_text
        self.ids: list[list[int]] = [[] for _ in limits]
        self.done = [False for _ in limits]
        self.stopped = [False for _ in limits]
        self._passed_on = [0 for _ in limits]

    def put(self, value: Tensor) -> None:
        if value.ndim != 1:  # the prompt, which is empty because it went in as embeddings
            return
        failed = self.finite.failed.tolist()
        for i, token in enumerate(value.tolist()):
            if not self.done[i] and not failed[i]:
                self._take(i, token)

    def _take(self, i: int, token: int) -> None:
        self.ids[i].append(token)
        self.stopped[i] = token in self.stop_ids
        self.done[i] = self.stopped[i] or len(self.ids[i]) >= self.limits[i]
        if self.on_text is not None:
            text = self.text(i)
            # A character may take several tokens; an incomplete one decodes as U+FFFD.
            if (self.done[i] or not text.endswith("\ufffd")) and len(text) > self._passed_on[i]:
                self.on_text(i, text[self._passed_on[i] :])
                self._passed_on[i] = len(text)

    def end(self) -> None:
        pass

    def text(self, i: int) -> str:
        return self.tokenizer.decode(self.ids[i], skip_special_tokens=True)

    def reason(self, i: int) -> Literal["stop", "length"]:
        return "stop" if self.stopped[i] else "length"
