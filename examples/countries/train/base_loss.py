"""The loss of stage `base`: the answer's cross-entropy, with the sequences and inputs of the reasoner itself.

The first token of the country's name weighs more where there are several items: it alone depends on the image, and the
rest of the answer follows from the name. Tokens of the question's image are trained to predict that name as well: there
the signature can be compared without being carried anywhere first.

Shapes: P packed tokens of all samples of a step, V vocabulary, L tokens, D width, Q slots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from comem_ray.config import Config
from comem_ray.model.memory_encoder import length_buckets
from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import END, ControlText, PlainText, image_parts
from examples.countries.train.base_mixture import KINDS, BaseSizes
from examples.countries.train.country_samples import CountrySample
from examples.countries.train.image_cache import CachedImageBackbone
from examples.countries.train.notes import (
    Codebook,
    add_noise,
    compose_notes,
    encode_words,
    image_signatures,
    word_slots,
)
from examples.countries.train.packing import PackedPrompts, pack, packed_hidden_states
from examples.countries.world.questions import FACTS, Fact, answer_sentence

NAN = float("nan")

EVERY = 3  # every third token of a question's image, the last among them, predicts the name


@dataclass(frozen=True)
class AnswerTokens:
    """An answer: its token ids, the weight of each, and the indices of the name's and the fact's first token."""

    ids: list[int]
    weights: list[float]
    name: int
    fact: int


@dataclass(frozen=True)
class PackedSamples:
    """Samples about the same items as one sequence."""

    samples: Sequence[CountrySample]
    prompt: Prompt  # the first sample's; it has the items, or their notes
    answers: list[AnswerTokens]
    packed: PackedPrompts
    image_indices: list[list[int]]  # per sample: packed tokens of its image that predict the name

    def targets(self, image_weight: float) -> tuple[list[int], list[int], list[float]]:
        """Packed indices, the token that each is to predict, its weight: first of the answers, then of the images."""
        indices, ids, weights = list[int](), list[int](), list[float]()
        for number, answer in enumerate(self.answers):
            end = self.packed.end(number)
            indices += range(end - len(answer.ids) - 1, end - 1)
            ids, weights = ids + answer.ids, weights + answer.weights
        for answer, image in zip(self.answers, self.image_indices, strict=True):
            indices += image
            ids += [answer.ids[answer.name]] * len(image)
            weights += [image_weight * answer.weights[answer.name] / max(1, len(image))] * len(image)
        return indices, ids, weights


class BaseLoss:
    """The loss of samples and its gradients."""

    def __init__(self, config: Config, backbone: CachedImageBackbone, book: Codebook, sizes: BaseSizes):
        self.reasoner, self.book, self.sizes = Reasoner(config, backbone=backbone), book, sizes
        self._sequencer = backbone.sequencer

    def pack(self, kind: str, groups: Sequence[Sequence[CountrySample]], number: int) -> list[PackedSamples]:
        """The samples of step `number`, one sequence per group of the same items, on the CPU."""
        generator = torch.Generator().manual_seed(number)
        return [self._pack(kind, group, generator) for group in groups]

    def backward(self, kind: str, batch: Sequence[PackedSamples]) -> dict[str, float]:
        """Adds the gradients of the loss. Returns the loss and the accuracy of first tokens."""
        total = sum(sum(answer.weights) for p in batch for answer in p.answers)
        correct: dict[int, Tensor] = {}
        loss = 0.0
        for bucket in length_buckets([len(p.packed) for p in batch], self.sizes.batch_tokens):
            group = [batch[i] for i in bucket]
            targets = [p.targets(self.sizes.image_weight) for p in group]
            logits = self._logits(group, [indices for indices, _, _ in targets])
            ids = torch.tensor([i for _, each, _ in targets for i in each], device=logits.device)
            weights = torch.tensor([w for _, _, each in targets for w in each], device=logits.device)
            part = (F.cross_entropy(logits, ids, reduction="none") * weights).sum() / total
            part.backward()
            loss += part.item()
            hits = (logits.argmax(-1) == ids).cpu().split([len(indices) for indices, _, _ in targets])
            correct |= dict(zip(bucket, hits, strict=True))
        first_tokens = [hit for i, p in enumerate(batch) for hit in _first_tokens(p, correct[i])]
        return {"loss": loss, "tokens": sum(len(p.packed) for p in batch), **_accuracies(kind, first_tokens)}

    def _pack(self, kind: str, samples: Sequence[CountrySample], generator: torch.Generator) -> PackedSamples:
        prompts = self.prompts(kind, samples, generator)
        further = [self._other_facts(s, generator) if kind == "read" else [] for s in samples]
        answers = [self.answer_tokens(sample, facts) for sample, facts in zip(samples, further, strict=True)]
        is_drill = kind in ("read", "pick")
        sequences = [self._drill(kind, p) if is_drill else self.reasoner.sequence(p) for p in prompts]
        sequences = [dataclasses.replace(s, ids=s.ids + a.ids) for s, a in zip(sequences, answers, strict=True)]
        shared_images = len(samples[0].items) if kind == "rag" else 0
        packed = pack(self.reasoner.backbone, sequences, shared_images)
        images = [packed.indices(n, self._sequencer.image_token_id) for n in range(len(samples))]
        return PackedSamples(samples, prompts[0], answers, packed, [i[EVERY - 1 :: EVERY] for i in images])

    def _drill(self, kind: str, prompt: Prompt) -> TokenSequence:
        """The sequence of a drill: notes, the token that every prompt begins with, the image where there is one."""
        assert prompt.memory is not None
        image = image_parts(prompt.image, "question") if kind == "pick" else []
        return self._sequencer.sequence(
            [ControlText("<|im_start|>"), *image], memory=prompt.memory.flatten(0, 1).shape[0]
        )

    def prompts(self, kind: str, samples: Sequence[CountrySample], generator: torch.Generator) -> list[Prompt]:
        """The reasoner's prompts of samples about the same items: with the items in rag, else with their notes."""
        if kind == "rag":
            return [Prompt(s.question, s.image, "rag", items=s.items) for s in samples]
        memory = self._noisy_notes(samples[0], generator)
        return [Prompt(s.question, s.image, "memory", memory=memory) for s in samples]

    @staticmethod
    def _other_facts(sample: CountrySample, generator: torch.Generator) -> list[Fact]:
        """The facts that the question is not about, in a random order."""
        others = [fact for fact in FACTS if fact != sample.fact]
        return [others[i] for i in torch.randperm(len(others), generator=generator)]

    def _noisy_notes(self, sample: CountrySample, generator: torch.Generator) -> Tensor:
        """Notes (items, Q, D) with noise."""
        tokens = self._sequencer.tokens(sample.images)
        words = encode_words([word_slots(c, self._sequencer.plain_ids) for c in sample.countries], self.book)
        words, signatures = add_noise(words, image_signatures(tokens), self.book, self.sizes.noise, generator)
        return compose_notes(words, signatures, self.book)

    def answer_tokens(self, sample: CountrySample, further: Sequence[Fact] = ()) -> AnswerTokens:
        """The answer, sentences with `further` facts, <|im_end|> and the newline after it, as weighted tokens."""
        plain, text = self._sequencer.plain_ids, sample.answer
        facts = [len(plain(sample.prefix_of_fact()))]
        for fact in further:
            facts.append(len(plain(f"{text} {sample.prefix_of_fact(fact)}")))
            text = f"{text} {answer_sentence(sample.country, fact)}"
        ids = self._sequencer.sequence([PlainText(text), END]).ids
        name = len(plain(sample.prefix_of_name()))
        weights = [1.0] * len(ids)
        for index in facts:
            weights[index] = self.sizes.fact_weight
        if len(sample.items) > 1:
            weights[name] = self.sizes.name_weight
        return AnswerTokens(ids, weights, name, facts[0])

    def _logits(self, batch: Sequence[PackedSamples], indices: Sequence[Sequence[int]]) -> Tensor:
        """Logits (P, V), float32, at the given packed indices of every sequence."""
        inputs, embeds = self.reasoner.inputs([p.prompt for p in batch], [p.packed.sequence for p in batch])
        hidden = packed_hidden_states(self.reasoner.backbone, inputs, embeds, [p.packed for p in batch])
        rows = [row[len(row) - len(p.packed) :] for row, p in zip(hidden, batch, strict=True)]  # without padding
        chosen = torch.cat([row[i] for row, i in zip(rows, indices, strict=True)])
        return self.reasoner.backbone.model.lm_head(chosen).float()


@dataclass(frozen=True)
class _FirstTokens:
    """Whether a sample's first tokens were predicted: the name's, the fact's, the name's at the last image token."""

    several: bool  # items to choose from
    name: Tensor
    fact: Tensor
    image: Tensor | None


def _first_tokens(samples: PackedSamples, correct: Tensor) -> Iterator[_FirstTokens]:
    lengths = [*(len(answer.ids) for answer in samples.answers), *(len(i) for i in samples.image_indices)]
    parts, count = correct.split(lengths), len(samples.answers)
    several = len(samples.samples[0].items) > 1
    for answer, own, image in zip(samples.answers, parts[:count], parts[count:], strict=True):
        yield _FirstTokens(several, own[answer.name], own[answer.fact], image[-1] if len(image) else None)


def _accuracies(kind: str, hits: Sequence[_FirstTokens]) -> dict[str, float]:
    """Accuracy of first tokens by kind of step, NaN for the other kinds.

    `pick`: the name's among several items. `image`: the name's at the image's last token. `fact`, `fact_alone`: the
    fact's, of several items and of one.
    """
    several, alone = ([h for h in hits if h.several == which] for which in (True, False))
    values = {
        "pick": _mean([h.name for h in several]),
        "image": _mean([h.image for h in several if h.image is not None]),
        "fact": _mean([h.fact for h in several]),
        "fact_alone": _mean([h.fact for h in alone]),
    }
    return {f"{k}_{name}": values[name] if k == kind else NAN for k in KINDS for name in values}


def _mean(hits: Sequence[Tensor]) -> float:
    return float(torch.stack(list(hits)).float().mean()) if hits else NAN
