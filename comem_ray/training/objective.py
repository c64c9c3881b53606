"""The objective: cross-entropy of the answer, back through the frozen backbone to the memory and to its encoder.

One backbone is encoder (adapter on) and reasoner (adapter off). The backward pass has two phases, because gradient
checkpointing recomputes with the adapter's state at that time: first the reasoner, adapter off, back to the memory;
then the encoder, adapter on, from the memory's gradient. The result equals that of a single graph.

The loss of a sample is the mean over the tokens of its answer and the end of its turn (<|im_end|> and newline). Logits
are computed at these positions only. An option, which the paper does not have: the KL divergence from the rag pass of
the same backbone to the memory pass (distillation), over the same positions.

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

    Raises ValueError if the reasoner encodes images with the adapter, which must be off in its pass, or has a LoRA.
    """

    def __init__(self, encoder: MemoryEncoder, reasoner: Reasoner, distillation: float = 0.0):
        assert encoder.backbone is reasoner.backbone
        if reasoner.vision_lora is not None:
            raise ValueError("training needs reasoner.question_vision: base; 'adapter' is for imported checkpoints")
        if reasoner.language_lora is not None:
            raise ValueError(
                "training needs the base as reasoner: set reasoner.language_model to base; the adapter.path that is "
                "written holds the LoRA of an imported reasoner, so name another folder"
            )
        self.encoder, self.reasoner, self.distillation = encoder, reasoner, distillation

    def backward(self, samples: Sequence[Sample], weight: float) -> Figures:
        """Adds the gradients of `weight` x (sum of the samples' losses) to the adapter's parameters.

        An item of several samples is encoded once. Its gradient is the sum over these samples.
        """
        numbers, distinct = _distinct_items(samples)
        items = [self.encoder.sequence(text, image) for text, image in distinct]
        groups = list(length_buckets([len(i) for i in items], self.encoder.batch_tokens))
        encoded = [self.encoder.forward([items[i] for i in group]) for group in groups]
        memory = _in_order(encoded, groups).requires_grad_() if items else None
        parts = [memory[n] if memory is not None and n else None for n in numbers]
        loss, kl, tokens = self._reason(samples, parts)
        (weight * (loss + self.distillation * kl)).backward()
        if memory is not None:
            assert memory.grad is not None
            with adapter_enabled(self.encoder.adapter.lora):
                for group, part in zip(groups, encoded, strict=True):
                    part.backward(memory.grad[group])
        encoder_tokens = sum(len(i) for i in items)
        return Figures(loss.item(), kl.item(), len(samples), tokens[0], encoder_tokens, tokens[1])

    def _reason(
        self, samples: Sequence[Sample], memory: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        answers = [self.encoder.backbone.sequencer.answer_ids(s.answer) for s in samples]
        prompts = [
            Prompt(s.question, s.image, "memory" if s.items else "none", memory=m)
            for s, m in zip(samples, memory, strict=True)
        ]
        sequences = self._with_answers(prompts, answers)
        logits = self._answer_logits(prompts, sequences, answers)
        targets = torch.tensor([i for ids in answers for i in ids], device=logits.device)
        shares = _shares(answers, logits.device)
        loss = (F.cross_entropy(logits, targets, reduction="none") * shares).sum()
        kl = self._distil(samples, answers, logits, shares) if self.distillation else loss.new_zeros(())
        return loss, kl, (len(targets), sum(len(s) for s in sequences))

    @torch.no_grad()
    def _teacher(self, samples: Sequence[Sample], answers: list[list[int]]) -> Tensor:
        prompts = [Prompt(s.question, s.image, "rag", items=s.items) for s in samples]
        return self._answer_logits(prompts, self._with_answers(prompts, answers), answers)

    def _distil(self, samples: Sequence[Sample], answers: list[list[int]], logits: Tensor, shares: Tensor) -> Tensor:
        teacher = self._teacher(samples, answers).log_softmax(-1)
        kl = F.kl_div(logits.log_softmax(-1), teacher, reduction="none", log_target=True).sum(-1)
        return (kl * shares).sum()

    def _with_answers(self, prompts: Sequence[Prompt], answers: list[list[int]]) -> list[TokenSequence]:
        sequences = [self.reasoner.sequence(p) for p in prompts]
        return [dataclasses.replace(s, ids=s.ids + a) for s, a in zip(sequences, answers, strict=True)]

    def _answer_logits(
        self, prompts: Sequence[Prompt], sequences: list[TokenSequence], answers: list[list[int]]
    ) -> Tensor:
        """Logits (A of all samples, vocabulary), float32, each at the position before its answer token."""
        batch, embeds = self.reasoner.inputs(prompts, sequences)
        hidden = self.reasoner.backbone.hidden_states(batch, embeds)
        # Padding is on the left: an answer of n tokens ends its row, and is predicted one position earlier.
        states = [hidden[i, -len(ids) - 1 : -1] for i, ids in enumerate(answers)]
        return self.reasoner.backbone.model.lm_head(torch.cat(states)).float()


def _distinct_items(samples: Sequence[Sample]) -> tuple[list[list[int]], list[tuple[str, Image]]]:
    """The numbers of each sample's items among the distinct items of all samples, and the distinct items."""
    numbers: dict[object, int] = {}
    distinct: list[tuple[str, Image]] = []
    by_sample: list[list[int]] = []
    for n, sample in enumerate(samples):
        keys: list[object] = list(sample.item_ids) or [(n, k) for k in range(len(sample.items))]
        for key, item in zip(keys, sample.items, strict=True):
            if key not in numbers:
                numbers[key] = len(distinct)
                distinct.append(item)
        by_sample.append([numbers[key] for key in keys])
    return by_sample, distinct


def _in_order(parts: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> Tensor:
    """The memory in the order of the items, detached from the encoder's graph."""
    order = [i for group in groups for i in group]
    return torch.cat([p.detach() for p in parts])[torch.tensor(order).argsort().to(parts[0].device)]


def _shares(answers: list[list[int]], device: torch.device) -> Tensor:
    """1 / (tokens of the answer) for each token, so that weighted sums are means within a sample."""
    return torch.tensor([1 / len(ids) for ids in answers for _ in ids], device=device)
