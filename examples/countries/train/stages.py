"""Trains the demo's model from nothing: `python -m examples.countries.train.stages --out FOLDER [--stage NAME]`.

    vision     the vision tower                     weights/tower.safetensors
    base       the base LoRA of the language model  weights/base_lora.safetensors
    reading    the adapter's Q-Former alone         reading.qformer.safetensors
    warmup     the adapter, on the merged backbone  adapter/
    knowledge  invented countries in WIT form       source/          then run jobs.ingest on it (it says how)
    samples    questions about them, with items     data/            then run jobs.train, which starts from adapter/

A finished stage is skipped, an unfinished one goes on from its checkpoint. `--sizes small` shrinks every size and takes
a random backbone in place of SmolLM2: a test of the road, not of the model. Every stage follows from seeds.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from comem_ray.artifacts import file_sha256, write_json
from comem_ray.config import Config
from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.random_backbone import write_random_backbone
from examples.countries.backbone import BASE_LORA, TOWER, build_backbone, is_complete, merge_trained
from examples.countries.smollm import fetch_wheel
from examples.countries.train.answers import Answers, answer_countries, write_knowledge, write_samples
from examples.countries.train.base import Base, train_base
from examples.countries.train.image_tokens import SeenBackbone, cached_tokens, seen_backbone
from examples.countries.train.lessons import Lessons
from examples.countries.train.notes import Codebook, codebook
from examples.countries.train.reading import READ, Reading, learn_to_read
from examples.countries.train.steps import Plan
from examples.countries.train.tower import Vision, image_subspace, nearest, tower_maps, train_tower
from examples.countries.train.warmup import ADAPTER, Warmup, warm_up
from examples.countries.world.countries import Country
from examples.countries.world.invented import Lexicon, Part, fixed_parts, lexicon, single_token_words, without_names_of

log = logging.getLogger(__name__)

INGEST = "python -m jobs.ingest --config examples/countries/train.yaml --set root={out}"
STAGES = ("vision", "base", "reading", "warmup", "knowledge", "samples")


@dataclass(frozen=True)
class Sizes:
    """The sizes of all stages."""

    vision: Vision
    base: Base
    reading: Reading
    warmup: Warmup
    answers: Answers
    views: int = 4  # of each map, in the cache of the frozen tower
    fixed: int = 200  # countries of the validation set, and of the test set


REAL = Sizes(Vision(), Base(), Reading(), Warmup(), Answers())
LARGE = replace(
    REAL,
    base=Base(
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
    warmup=Warmup(
        plan=Plan(steps=400, learning_rate=1e-3, warmup=0.1, checkpoint_every=200),
        batch=64,
        batch_tokens=16_384,
        compile=False,
    ),
)
SMALL = Sizes(
    Vision(
        plan=Plan(steps=6, learning_rate=3e-3, checkpoint_every=2),
        maps=12,
        batch=16,
        lookalikes=0.5,
        lda_maps=40,
        lda_views=2,
        directions=8,
        validation=8,
    ),
    Base(
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
    Reading(plan=Plan(steps=4, learning_rate=1e-3, checkpoint_every=2), items=12, start_items=8, batch=4),
    Warmup(plan=Plan(steps=4, learning_rate=2e-3, checkpoint_every=2), batch=4, compile=False),
    Answers(training=6, validation=4, rows_per_shard=10),
    views=2,
    fixed=8,
)


def _with_steps(sizes: Sizes, steps: Mapping[str, int]) -> Sizes:
    """The sizes with other numbers of steps, by stage. Raises ValueError for a stage that takes none."""
    if unknown := sorted(steps.keys() - {"vision", "base", "reading", "warmup"}):
        raise ValueError(f"stage {unknown[0]!r} has no steps; vision, base, reading and warmup have")
    stages = {name: getattr(sizes, name) for name in steps}
    return replace(sizes, **{n: replace(s, plan=replace(s.plan, steps=steps[n])) for n, s in stages.items()})


SIZES = {"real": REAL, "large": LARGE, "small": SMALL}


class Run:
    """One run of the stages in a folder; what a stage needs is made, or loaded, when it is first asked for."""

    def __init__(
        self,
        out: Path,
        sizes: str = "real",
        wheels: Path | None = None,
        items: Path | None = None,
        steps: Mapping[str, int] | None = None,
        warmup_from: Path | None = None,
    ):
        self.out, self.small, self.sizes = out.absolute(), sizes == "small", _with_steps(SIZES[sizes], steps or {})
        self.weights, self.wheels = self.out / "weights", wheels or self.out / "wheels"
        self.items, self.warmup_from = items or self.out / "items", warmup_from

    def stage(self, name: str) -> None:
        """Runs one stage, unless it is finished. Raises ValueError where an earlier one has not been run."""
        done, run = self._stages()[name]
        if done.exists():
            log.info("%s: finished, %s is there", name, done)
            return
        log.info("%s: begins", name)
        run()

    def _stages(self) -> dict[str, tuple[Path, Callable[[], None]]]:
        return {
            "vision": (self.weights / TOWER, self._vision),
            "base": (self.weights / BASE_LORA, self._base),
            "reading": (self.out / READ, self._reading),
            "warmup": (self.out / ADAPTER / "adapter.json", self._warmup),
            "knowledge": (self.out / "source" / "countries.tsv", self._knowledge),
            "samples": (self.out / "data" / "samples.json", self._samples),
        }

    def _vision(self) -> None:
        backbone = self._load(self._backbone())
        half = backbone.dtype == torch.bfloat16  # where that is fast
        embeddings = backbone.model.get_input_embeddings().weight.detach().float().cpu()
        train_tower(backbone.model.model.visual.float(), embeddings, self.weights, self.sizes.vision, half=half)

    def _base(self) -> None:
        seen, book = self._seen(self._load(self._backbone(TOWER)))
        lessons, tower = self.lessons(seen), self.tower_digest()
        train_base(seen, lessons, book, self.config(), self.weights, self.sizes.base, tower, workers=_makers())

    def _reading(self) -> None:
        folder = self.merged()
        seen, book = self._seen(self._load(folder))
        made_of = checkpoint_fingerprint(folder)
        learn_to_read(seen, self.lessons(seen), book, self.config(), self.out, self.sizes.reading, made_of)

    def _warmup(self) -> None:
        if self.warmup_from is None and not (self.out / READ).exists():
            raise ValueError(f"{self.out} lacks {READ}: run the stages before this one first")
        folder = self.merged()
        seen, book = self._seen(self._load(folder))
        lessons, made_of = self.lessons(seen), checkpoint_fingerprint(folder)
        config = self.config(adapter=self.warmup_from)
        warm_up(seen, lessons, book, config, self.out, self.sizes.warmup, made_of, workers=_makers())

    def _knowledge(self) -> None:
        rows = write_knowledge(self.out / "source", self.answer_countries())
        log.info("knowledge: %d rows; now run %s", rows, INGEST.format(out=self.out))

    def _samples(self) -> None:
        counts = write_samples(
            self.out / "data", self.items, self.answer_countries(), self._load(self.merged()), self.sizes.answers
        )
        write_json(self.out / "data" / "samples.json", counts)

    @cached_property
    def fixed(self) -> dict[Part, tuple[Country, ...]]:
        """The validation and test countries."""
        return fixed_parts(self._every_word, self.sizes.fixed, self.sizes.fixed)

    @cached_property
    def training_lexicon(self) -> Lexicon:
        """The words of training: none of the validation and test countries' names."""
        return without_names_of([c for part in self.fixed.values() for c in part], self._every_word)

    @cached_property
    def _every_word(self) -> Lexicon:
        return lexicon(single_token_words(AutoTokenizer.from_pretrained(self._backbone())))

    def answer_countries(self) -> dict[Part, list[Country]]:
        """The countries of the last stage's data."""
        return answer_countries(self.training_lexicon, self.fixed["validation"], self.sizes.answers)

    def lessons(self, seen: SeenBackbone) -> Lessons:
        """The source of lessons over the maps of training, look-alikes as the frozen tower sees them."""
        neighbours = nearest(seen.sequencer.cache[:, 0].float().mean(1))
        return Lessons(self.training_lexicon, tower_maps(self.sizes.vision.maps), self.sizes.views, neighbours)

    def _seen(self, backbone: Backbone) -> tuple[SeenBackbone, Codebook]:
        maps = tower_maps(self.sizes.vision.maps)
        path = self.out / "cache" / f"tokens-{self.tower_digest()[:12]}.safetensors"  # of this tower
        tokens = cached_tokens(backbone, maps, self.sizes.views, path)
        embeddings: Tensor = backbone.model.get_input_embeddings().weight.detach()
        subspace = image_subspace(backbone.model.model.visual, self.sizes.vision.directions)
        return seen_backbone(backbone, tokens), codebook(embeddings.float().cpu(), subspace.cpu())

    def tower_digest(self) -> str:
        """The digest of the trained tower."""
        return file_sha256(self.weights / TOWER)

    def merged(self) -> Path:
        """The folder of the backbone with tower and base LoRA merged in, built where it is not there."""
        return self._backbone(TOWER, BASE_LORA)

    def _backbone(self, *names: str) -> Path:
        """The folder of the backbone with the trained parts `names` merged in, built where it is not there."""
        if missing := [n for n in names if not (self.weights / n).exists()]:
            raise ValueError(f"{self.weights} lacks {', '.join(missing)}: run the stages before this one first")
        parts = self._parts(names)
        folder = self.out / "backbones" / parts.name
        if self.small:
            _random_backbone(folder, parts)
        elif not is_complete(folder, parts):
            build_backbone(folder, fetch_wheel(self.wheels), parts)
        return folder

    def _parts(self, names: Sequence[str]) -> Path:
        """A folder with just these of the trained parts."""
        folder = self.out / "cache" / ("-".join(n.split(".")[0] for n in names) or "untrained")
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).unlink(missing_ok=True)
            (folder / name).hardlink_to(self.weights / name)
        return folder

    def _load(self, folder: Path) -> Backbone:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        exact = self.small and device == "cpu"  # a test finds the same on every machine
        return load_backbone(self.config(folder, "float32" if exact else "auto").backbone, device)

    def config(self, backbone: Path | None = None, precision: str = "auto", adapter: Path | None = None) -> Config:
        """The configuration of encoder and reasoner, with the sizes of `configs/demo.yaml`."""
        pixels = {"min": 112 * 84, "max": 112 * 84}
        fields: dict[str, Any] = {"path": adapter and str(adapter), "lora_dropout": 0.0}
        fields |= {"qformer_heads": 4} if self.small else {}
        return Config.model_validate(
            {
                "name": "demo-model",
                "root": str(self.out),
                "ingest": {"sources": [{"path": str(self.out / "source" / "countries.tsv")}]},
                "clip": {"model": "none"},
                "backbone": {
                    "model": str(backbone or self.out),
                    "precision": precision,
                    "attention": "sdpa" if torch.cuda.is_available() else "eager",  # what is faster there
                    "item_pixels": pixels,
                    "question_pixels": pixels,
                },
                "adapter": fields,
                "reasoner": {"max_prompt_tokens": 8192},
            }
        )


def _makers() -> int:
    """Processes that make what a step reads: none where the CPU itself does the step."""
    return min(12, (os.cpu_count() or 2) - 1) if torch.cuda.is_available() else 0


def _random_backbone(folder: Path, parts: Path) -> None:
    write_random_backbone(folder, "qwen2_5_vl")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    merge_trained(model, parts)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.countries.train.stages", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument(
        "--stage", choices=STAGES, help="this stage alone; without it all, `samples` once jobs.ingest has run"
    )
    parser.add_argument("--wheels", type=Path, help="folder of the SmolLM2 wheel; FOLDER/wheels by default")
    parser.add_argument("--items", type=Path, help="items/ that jobs.ingest made of FOLDER/source; FOLDER/items else")
    parser.add_argument(
        "--sizes",
        choices=SIZES,
        default="real",
        help="real: for two cores; large: more steps of larger batches, for a GPU; small: a test on a random backbone",
    )
    parser.add_argument("--steps", action="append", default=[], metavar="STAGE=N", help="other than the built-in steps")
    parser.add_argument("--warmup-from", type=Path, help="adapter that `warmup` goes on from, in place of a new one")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    steps = {name: int(count) for name, _, count in (text.partition("=") for text in args.steps)}
    run = Run(args.out, args.sizes, args.wheels, args.items, steps, args.warmup_from)
    every = STAGES if (run.items / "manifest.json").exists() else STAGES[:-1]
    for name in [args.stage] if args.stage else every:
        run.stage(name)


if __name__ == "__main__":
    main()
