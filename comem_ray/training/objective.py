"""The objective: cross-entropy of the answer, through the frozen backbone, to the memory and the encoder behind it.

One backbone serves as encoder (adapter on) and reasoner (adapter off). Its backward pass comes in two phases, for with
gradient checkpointing the recomputation runs with the adapter's state of that moment: first the reasoner, adapter off,
back to the memory; then the encoder, adapter on, from the memory's gradient. The result is that of a single graph.

The loss of a sample is the mean over the tokens of its answer, the closing <|im_end|> and the newline after it; logits
are computed at these positions only. Optional, off in the paper: KL from the rag pass of the same backbone to the
memory pass (distillation), over the same positions.

Letters: B samples, N items of all samples, Q queries, D width, A answer tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from comem_ray.model.lora import adapter_enabled
from comem_ray.model.memory_encoder import MemoryEncoder, length_buckets
from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import END, PlainText
from comem_ray.training.data.samples import Sample


@dataclass(frozen=True)
class Figures:
    """Sums over the samples of a backward pass."""

    loss: float  # sum over samples of the mean cross-entropy of their answers, nats
    distillation: float  # sum over samples of the mean KL of their answers, nats
    samples: int
    answer_tokens: int
    encoder_tokens: int
    reasoner_tokens: int

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


NOTHING = Figures(0.0, 0.0, 0, 0, 0, 0)


class Objective:
    """Loss and gradients of samples. `encoder` and `reasoner` share one backbone.

    Raises ValueError for a reasoner that sees questions through the adapter: its pass must have none of it here.
    """

    def __init__(self, encoder: MemoryEncoder, reasoner: Reasoner, distillation: float = 0.0):
        assert encoder.backbone is reasoner.backbone
        if reasoner.vision_lora is not None:
            raise ValueError("training wants reasoner.question_vision: base; 'adapter' is for imported checkpoints")
        self.encoder, self.reasoner, self.distillation = encoder, reasoner, distillation

    def backward(self, samples: Sequence[Sample], weight: float) -> Figures:
        """Adds the gradients of `weight` x (sum of the samples' losses) to the adapter's parameters.

        An item of several samples is encoded once; its gradient is the sum of theirs.
        """
        places, shown = _different_items(samples)
        items = [self.encoder.sequence(text, image) for text, image in shown]
        groups = list(length_buckets([len(i) for i in items], self.encoder.batch_tokens))
        encoded = [self.encoder.forward([items[i] for i in group]) for group in groups]
        memory = _in_order(encoded, groups).requires_grad_() if items else None
        parts = [memory[p] if memory is not None and p else None for p in places]
        loss, kl, tokens = self._reason(samples, parts)
        (weight * (loss + self.distillation * kl)).backward()
        if memory is not None:
            assert memory.grad is not None
            with adapter_enabled(self.encoder.adapter.lora):
                for group, part in zip(groups, encoded, strict=True):
                    part.backward(memory.grad[group])
        read = sum(len(i) for i in items)
        return Figures(loss.item(), kl.item(), len(samples), tokens[0], read, tokens[1])

    def _reason(
        self, samples: Sequence[Sample], memory: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        answers = [self._answer_ids(s.answer) for s in samples]
        asked = [
            Prompt(s.question, s.image, "memory" if s.items else "none", memory=m)
            for s, m in zip(samples, memory, strict=True)
        ]
        sequences = self._with_answers(asked, answers)
        logits = self._answer_logits(asked, sequences, answers)
        targets = torch.tensor([i for ids in answers for i in ids], device=logits.device)
        shares = _shares(answers, logits.device)
        loss = (F.cross_entropy(logits, targets, reduction="none") * shares).sum()
        kl = self._distil(samples, answers, logits, shares) if self.distillation else loss.new_zeros(())
        return loss, kl, (len(targets), sum(len(s) for s in sequences))

    @torch.no_grad()
    def _teacher(self, samples: Sequence[Sample], answers: list[list[int]]) -> Tensor:
        asked = [Prompt(s.question, s.image, "rag", items=s.items) for s in samples]
        return self._answer_logits(asked, self._with_answers(asked, answers), answers)

    def _distil(self, samples: Sequence[Sample], answers: list[list[int]], logits: Tensor, shares: Tensor) -> Tensor:
        teacher = self._teacher(samples, answers).log_softmax(-1)
        kl = F.kl_div(logits.log_softmax(-1), teacher, reduction="none", log_target=True).sum(-1)
        return (kl * shares).sum()

    def _answer_ids(self, answer: str) -> list[int]:
        return self.encoder.backbone.sequencer.sequence([PlainText(answer), END]).ids

    def _with_answers(self, asked: Sequence[Prompt], answers: list[list[int]]) -> list[TokenSequence]:
        prompts = [self.reasoner.sequence(q) for q in asked]
        return [dataclasses.replace(p, ids=p.ids + a) for p, a in zip(prompts, answers, strict=True)]

    def _answer_logits(
        self, asked: Sequence[Prompt], sequences: list[TokenSequence], answers: list[list[int]]
    ) -> Tensor:
        """Logits (A of all samples, vocabulary), float32, each of the position before its answer token."""
        batch, embeds = self.reasoner.inputs(asked, sequences)
        hidden = self.reasoner.backbone.hidden_states(batch, embeds)
        # Padding is on the left: an answer of n tokens ends its row, and is predicted one place earlier.
        places = [hidden[i, -len(ids) - 1 : -1] for i, ids in enumerate(answers)]
        return self.reasoner.backbone.model.lm_head(torch.cat(places)).float()


def _different_items(samples: Sequence[Sample]) -> tuple[list[list[int]], list[tuple[str, Image]]]:
    """The places of each sample's items among the different items of all, and these."""
    numbers: dict[object, int] = {}
    shown: list[tuple[str, Image]] = []
    places: list[list[int]] = []
    for n, sample in enumerate(samples):
        keys: list[object] = list(sample.item_ids) or [(n, k) for k in range(len(sample.items))]
        for key, item in zip(keys, sample.items, strict=True):
            if key not in numbers:
                numbers[key] = len(shown)
                shown.append(item)
        places.append([numbers[key] for key in keys])
    return places, shown


def _in_order(parts: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> Tensor:
    """The items' memory in their own order, cut off from the encoder's graph."""
    places = [i for group in groups for i in group]
    return torch.cat([p.detach() for p in parts])[torch.tensor(places).argsort().to(parts[0].device)]


def _shares(answers: list[list[int]], device: torch.device) -> Tensor:
    """1 / (tokens of the answer) for each token: sums of it are means within a sample."""
    return torch.tensor([1 / len(ids) for ids in answers for _ in ids], device=device)
