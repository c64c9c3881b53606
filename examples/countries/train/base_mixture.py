"""The mixture of stage `base`: which kind of samples a step has, and how they are drawn.

Kinds: `memory` (notes in front of the question), `rag` (items in the prompt), and the drills `read` and `pick` (`base`
says what they are). What a step draws is a function of its number alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from examples.countries.train.country_samples import CountrySample, CountrySampler, SampleSpec
from examples.countries.train.stage_loop import Plan

KINDS = ("memory", "rag", "read", "pick")

PLAN = Plan(steps=900, learning_rate=1e-3, warmup=0.03, checkpoint_every=50)


@dataclass(frozen=True)
class BaseSizes:
    """Sizes of the stage. "Of the steps" and "of the questions" are fractions."""

    plan: Plan = PLAN
    rank: int = 48
    notes: tuple[float, float] = (0.65, 0.85)  # of the steps, before and after `rag_learned`; the others are rag
    rag_learned: float = 0.45  # of the steps
    notes_batch: int = 6  # sets of items per step of notes
    rag_batch: int = 4  # sets of items per step of rag
    items: tuple[int, ...] = (1, 2, 2, 3, 3, 3, 5, 10)  # in a set: one of these
    rag_items: int = 3  # in a set, at most, in rag: there an item is a whole text
    questions: int = 5  # about each set; their common beginning is computed once
    drills: float = 0.25  # of the steps, the first ones
    drill_kinds: tuple[float, float] = (0.4, 0.4)  # of the drills: read, pick; the others are rag
    read_batch: int = 27
    pick_batch: int = 6
    pick_items: tuple[int, ...] = (2, 2, 3, 3, 3, 4)
    pick_questions: int = 8
    batch_tokens: int = 2048  # in one forward pass, padding included
    name_weight: float = 6.0  # of the name's first token where there are several items
    fact_weight: float = 2.0  # of the fact's first token
    image_weight: float = 0.5  # of the name at the image's tokens, times its weight in the answer
    noise: tuple[float, float] = (0.4, 0.2)  # of notes: words, signatures
    last_part: float = 0.25  # of the steps, the last ones, in which the right item moves to the front
    first: float = 0.45  # chance of the front at the very end, on top of the uniform share
    compile: bool = True
    seed: int = 0


def batch_of(number: int, sampler: CountrySampler, sizes: BaseSizes) -> tuple[str, list[list[CountrySample]]]:
    """The kind and the samples of step `number`, in groups that share their items."""
    rng = random.Random(f"base {sizes.seed} {number}")
    progress = number / sizes.plan.steps
    kind = _kind(rng.random(), progress, sizes)
    first = sizes.first * max(0.0, 1 - (1 - progress) / sizes.last_part)
    lookalikes = 0.15 if progress < 0.25 else 0.5
    count, items, questions = {
        "memory": (sizes.notes_batch, sizes.items, sizes.questions),
        "rag": (sizes.rag_batch, [k for k in sizes.items if k <= sizes.rag_items], sizes.questions),
        "read": (sizes.read_batch, (1,), 1),
        "pick": (sizes.pick_batch, sizes.pick_items, sizes.pick_questions),
    }[kind]
    specs = [SampleSpec(rng.choice(items), lookalikes, first) for _ in range(count)]
    return kind, [sampler.draw(rng, spec, questions) for spec in specs]


def _kind(chance: float, progress: float, sizes: BaseSizes) -> str:
    if progress < sizes.drills:
        read, pick = sizes.drill_kinds
        return "read" if chance < read else "pick" if chance < read + pick else "rag"
    return "memory" if chance < sizes.notes[progress >= sizes.rag_learned] else "rag"
