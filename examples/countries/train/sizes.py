"""The sizes of all training stages: `real` for two cores, `large` for a GPU, `small` for tests on a random backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from examples.countries.train.adapter_data import AdapterDataSizes
from examples.countries.train.base_mixture import BaseSizes
from examples.countries.train.reading import ReadingSizes
from examples.countries.train.stage_loop import Plan
from examples.countries.train.tower import VisionSizes
from examples.countries.train.warmup import WarmupSizes


@dataclass(frozen=True)
class Sizes:
    """The sizes of all stages."""

    vision: VisionSizes
    base: BaseSizes
    reading: ReadingSizes
    warmup: WarmupSizes
    adapter_data: AdapterDataSizes
    views: int = 4  # of each map, in the image cache
    fixed: int = 200  # countries of the validation split, and of the test split

    def with_steps(self, steps: Mapping[str, int]) -> Sizes:
        """These sizes with other numbers of steps, by stage. Raises ValueError for a stage that has no steps."""
        if unknown := sorted(steps.keys() - {"vision", "base", "reading", "warmup"}):
            raise ValueError(f"stage {unknown[0]!r} has no steps; vision, base, reading and warmup have")
        stages = {name: getattr(self, name) for name in steps}
        return replace(self, **{n: replace(s, plan=replace(s.plan, steps=steps[n])) for n, s in stages.items()})


REAL = Sizes(VisionSizes(), BaseSizes(), ReadingSizes(), WarmupSizes(), AdapterDataSizes())
LARGE = replace(
    REAL,
    base=BaseSizes(
        plan=Plan(steps=1350, learning_rate=1e-3, warmup=0.03, checkpoint_every=450),
        items=(1, 1, 2, 2, 3, 3, 3, 5, 10),
        rag_items=10,
        first=0.6,
        notes=(0.65, 0.8),
        rag_learned=0.4,
        notes_batch=16,
        rag_batch=8,
        read_batch=72,
        pick_batch=16,
        batch_tokens=16_384,
        compile=False,  # not tried on a GPU
    ),
    warmup=WarmupSizes(
        plan=Plan(steps=400, learning_rate=1e-3, warmup=0.1, checkpoint_every=200),
        batch=64,
        batch_tokens=16_384,
        compile=False,
    ),
)
SMALL = Sizes(
    VisionSizes(
        plan=Plan(steps=6, learning_rate=3e-3, checkpoint_every=2),
        maps=12,
        batch=16,
        lookalikes=0.5,
        lda_maps=40,
        lda_views=2,
        directions=8,
        validation=8,
    ),
    BaseSizes(
        plan=Plan(steps=4, learning_rate=1e-3, checkpoint_every=2),
        rank=4,
        notes_batch=2,
        rag_batch=1,
        questions=3,
        drills=0.5,
        read_batch=3,
        pick_batch=1,
        pick_questions=3,
        compile=False,
    ),
    ReadingSizes(plan=Plan(steps=4, learning_rate=1e-3, checkpoint_every=2), items=12, start_items=8, batch=4),
    WarmupSizes(plan=Plan(steps=4, learning_rate=2e-3, checkpoint_every=2), batch=4, compile=False),
    AdapterDataSizes(training=6, validation=4, rows_per_shard=10),
    views=2,
    fixed=8,
)
SIZES = {"real": REAL, "large": LARGE, "small": SMALL}
