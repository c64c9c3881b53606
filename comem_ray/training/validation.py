"""Validation: questions about entities that training never sees, answered greedily in each mode.

A sample's gold answers and the rule that scores them stand in its provenance ({"rule": ..., "gold": [...]}). Knows
nothing of training; what it is given is the encoder and the reasoner as they are at that step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comem_ray.config import ValidationConfig
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Prompt, Reasoner, make_prompt
from comem_ray.prompts import Mode
from comem_ray.tasks.rules.scoring import boxed, score
from comem_ray.training.data.samples import Sample, SampleSet

BATCH = 8


class Validator:
    """Scores the first `config.questions` samples."""

    def __init__(self, config: ValidationConfig, samples: SampleSet, encoder: MemoryEncoder, reasoner: Reasoner):
        self._config, self._samples, self._encoder, self._reasoner = config, samples, encoder, reasoner

    def figures(self) -> dict[str, float]:
        """Mean score of each mode, in percent, and the number of questions under "n"."""
        count = min(self._config.questions, len(self._samples))
        sums = dict.fromkeys(self._config.modes, 0.0)
        was_training = self._encoder.adapter.lora.training
        self._training(False)  # no dropout
        try:
            for first in range(0, count, BATCH):
                samples = [self._samples.get(i) for i in range(first, min(first + BATCH, count))]
                for mode in self._config.modes:
                    sums[mode] += self._score(samples, mode)
        finally:
            self._training(was_training)
        return {mode: round(100 * total / count, 2) for mode, total in sums.items()} | {"n": count}

    def _training(self, on: bool) -> None:
        self._encoder.adapter.lora.train(on)
        self._encoder.adapter.qformer.train(on)

    @torch.inference_mode()
    def _score(self, samples: Sequence[Sample], mode: Mode) -> float:
        answers = self._reasoner.answer([self._prompt(s, mode) for s in samples])
        return sum((score(s.rule, final(a.text), s.gold) for s, a in zip(samples, answers, strict=True)), 0.0)

    def _prompt(self, sample: Sample, mode: Mode) -> Prompt:
        memory = self._encoder.encode(sample.items) if mode == "memory" and sample.items else None
        return make_prompt(sample.question, sample.image, mode, sample.items, memory)


def final(text: str) -> str:
    """The final answer of a text: the content of its last box, or the whole where it has none."""
    return boxed(text) or text
