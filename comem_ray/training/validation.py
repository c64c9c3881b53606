"""Validation: questions about entities that training never sees, answered greedily in each mode.

A sample names its gold answers and the rule that scores them. Knows nothing of training; what it is given is the
encoder and the reasoner as they are at that step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from comem_ray.config import Config
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Completion, Prompt, Reasoner, make_prompt
from comem_ray.prompts import Mode
from comem_ray.tasks.rules.final_answer import final_answer
from comem_ray.tasks.rules.own import import_rules
from comem_ray.tasks.rules.scoring import score
from comem_ray.training.data.samples import Sample, SampleSet

BATCH = 8


class Validator:
    """Scores the first `training.validation.questions` samples. Raises ConfigError for an unusable scoring rule."""

    def __init__(self, config: Config, samples: SampleSet, encoder: MemoryEncoder, reasoner: Reasoner):
        assert config.training is not None
        assert config.training.validation is not None
        self._config, self._samples = config.training.validation, samples
        self._encoder, self._reasoner = encoder, reasoner
        self._own_rules = import_rules(config.scoring_rules)

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
        outcomes = self._reasoner.answer_each([self._prompt(s, mode) for s in samples])
        return sum(
            (
                score(sample.rule, final_answer(outcome.text), sample.gold, self._own_rules)
                for sample, outcome in zip(samples, outcomes, strict=True)
                if isinstance(outcome, Completion)  # a prompt that is too long in this mode is a wrong answer
            ),
            0.0,
        )

    def _prompt(self, sample: Sample, mode: Mode) -> Prompt:
        memory = self._encoder.encode(sample.items) if mode == "memory" and sample.items else None
        return make_prompt(sample.question, sample.image, mode, sample.items, memory)
