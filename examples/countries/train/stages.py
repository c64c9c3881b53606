"""Trains the demo's model from nothing: `python -m examples.countries.train.stages --out FOLDER [--stage NAME]`.

    vision     the vision tower                     weights/tower.safetensors
    base       the base LoRA of the language model  weights/base_lora.safetensors
    reading    the adapter's Q-Former alone         reading.qformer.safetensors
    warmup     the adapter, on the merged backbone  adapter/
    knowledge  invented countries in WIT form       source/          then run jobs.ingest on it (the log says how)
    samples    questions about them, with items     data/            then run jobs.train, which starts from adapter/

A finished stage is skipped, an unfinished one resumes from its checkpoint. `--sizes small` shrinks every size and takes
a random backbone in place of SmolLM2: a test of the stages, not of the model. Every stage follows from seeds.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Mapping, Sequence
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
from examples.countries.train.adapter_data import adapter_countries, write_knowledge, write_samples
from examples.countries.train.base import train_base
from examples.countries.train.country_samples import CountrySampler
from examples.countries.train.image_cache import CachedImageBackbone, cache_image_tokens, with_cached_images
from examples.countries.train.notes import Codebook, codebook
from examples.countries.train.reading import QFORMER, train_qformer
from examples.countries.train.sizes import SIZES
from examples.countries.train.tower import image_subspace, nearest, tower_maps, train_tower
from examples.countries.train.warmup import ADAPTER, warm_up
from examples.countries.world.countries import Country
from examples.countries.world.invented import Split, fixed_splits
from examples.countries.world.lexicon import Lexicon, lexicon, single_token_words, without_names_of

log = logging.getLogger(__name__)

INGEST = "python -m jobs.ingest --config examples/countries/train.yaml --set root={out}"
STAGES = ("vision", "base", "reading", "warmup", "knowledge", "samples")


class Run:
    """One run of the stages in folder `out`; what a stage needs is made, or loaded, when it is first needed."""

    def __init__(
        self,
        out: Path,
        sizes: str = "real",
        wheels: Path | None = None,
        items: Path | None = None,
        steps: Mapping[str, int] | None = None,
        warmup_from: Path | None = None,
    ):
        self.out, self.small, self.sizes = out.absolute(), sizes == "small", SIZES[sizes].with_steps(steps or {})
        self.weights, self.wheels = self.out / "weights", wheels or self.out / "wheels"
        self.items, self.warmup_from = items or self.out / "items", warmup_from

    def stage(self, name: str) -> None:
        """Runs one stage, unless it is finished. Raises ValueError where an earlier one is not."""
        output, run = self._stages()[name]
        if output.exists():
            log.info("%s: already finished, it made %s", name, output)
            return
        log.info("%s: begins", name)
        run()

    def _stages(self) -> dict[str, tuple[Path, Callable[[], None]]]:
        return {
            "vision": (self.weights / TOWER, self._vision),
            "base": (self.weights / BASE_LORA, self._base),
            "reading": (self.out / QFORMER, self._reading),
            "warmup": (self.out / ADAPTER / "adapter.json", self._warmup),
            "knowledge": (self.out / "source" / "countries.tsv", self._knowledge),
            "samples": (self.out / "data" / "samples.json", self._samples),
        }

    def _vision(self) -> None:
        backbone = self.load(self.backbone())
        half = backbone.dtype == torch.bfloat16  # where that is fast
        embeddings = backbone.model.get_input_embeddings().weight.detach().float().cpu()
        train_tower(backbone.model.model.visual.float(), embeddings, self.weights, self.sizes.vision, half=half)

    def _base(self) -> None:
        cached, book = self.with_image_cache(self.load(self.backbone(TOWER)))
        sampler, tower = self.sampler(cached), self.tower_digest()
        train_base(cached, sampler, book, self.config(), self.weights, self.sizes.base, tower, workers=_workers())

    def _reading(self) -> None:
        folder = self.merged()
        cached, book = self.with_image_cache(self.load(folder))
        fingerprint = checkpoint_fingerprint(folder)
        train_qformer(cached, self.sampler(cached), book, self.config(), self.out, self.sizes.reading, fingerprint)

    def _warmup(self) -> None:
        if self.warmup_from is None and not (self.out / QFORMER).exists():
            raise ValueError(f"{self.out} lacks {QFORMER}: run the stages before this one first")
        folder = self.merged()
        cached, book = self.with_image_cache(self.load(folder))
        sampler, fingerprint = self.sampler(cached), checkpoint_fingerprint(folder)
        config = self.config(adapter=self.warmup_from)
        warm_up(cached, sampler, book, config, self.out, self.sizes.warmup, fingerprint, workers=_workers())

    def _knowledge(self) -> None:
        rows = write_knowledge(self.out / "source", self.adapter_countries())
        log.info("knowledge: %d rows; now run %s", rows, INGEST.format(out=self.out))

    def _samples(self) -> None:
        backbone, sizes = self.load(self.merged()), self.sizes.adapter_data
        counts = write_samples(self.out / "data", self.items, self.adapter_countries(), backbone, sizes)
        write_json(self.out / "data" / "samples.json", counts)

    @cached_property
    def fixed(self) -> dict[Split, tuple[Country, ...]]:
        """The validation and test countries."""
        return fixed_splits(self._full_lexicon, self.sizes.fixed, self.sizes.fixed)

    @cached_property
    def training_lexicon(self) -> Lexicon:
        """The words of training: none of the validation and test countries' names."""
        return without_names_of([c for split in self.fixed.values() for c in split], self._full_lexicon)

    @cached_property
    def _full_lexicon(self) -> Lexicon:
        return lexicon(single_token_words(AutoTokenizer.from_pretrained(self.backbone())))

    def adapter_countries(self) -> dict[Split, list[Country]]:
        """The countries of stages `knowledge` and `samples`."""
        return adapter_countries(self.training_lexicon, self.fixed["validation"], self.sizes.adapter_data)

    def sampler(self, backbone: CachedImageBackbone) -> CountrySampler:
        """The sampler over the maps of training, with look-alikes by the frozen tower."""
        neighbours = nearest(backbone.sequencer.cache[:, 0].float().mean(1))
        return CountrySampler(self.training_lexicon, tower_maps(self.sizes.vision.maps), self.sizes.views, neighbours)

    def with_image_cache(self, backbone: Backbone) -> tuple[CachedImageBackbone, Codebook]:
        """The backbone for cached images, and the codebook of its notes; the cache is filled where it is missing."""
        maps = tower_maps(self.sizes.vision.maps)
        path = self.out / "cache" / f"tokens-{self.tower_digest()[:12]}.safetensors"  # of this tower
        tokens = cache_image_tokens(backbone, maps, self.sizes.views, path)
        embeddings: Tensor = backbone.model.get_input_embeddings().weight.detach()
        subspace = image_subspace(backbone.model.model.visual, self.sizes.vision.directions)
        return with_cached_images(backbone, tokens), codebook(embeddings.float().cpu(), subspace.cpu())

    def tower_digest(self) -> str:
        """The digest of the trained tower."""
        return file_sha256(self.weights / TOWER)

    def merged(self) -> Path:
        """The folder of the backbone with tower and base LoRA merged in, built where missing."""
        return self.backbone(TOWER, BASE_LORA)

    def backbone(self, *names: str) -> Path:
        """The folder of the backbone with the trained parts `names` merged in, built where missing.

        Raises ValueError where a trained part is missing.
        """
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
        """A folder with these trained parts alone."""
        folder = self.out / "cache" / ("-".join(n.split(".")[0] for n in names) or "untrained")
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).unlink(missing_ok=True)
            (folder / name).hardlink_to(self.weights / name)
        return folder

    def load(self, folder: Path) -> Backbone:
        """The backbone of a folder, on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        exact = self.small and device == "cpu"  # tests have the same numbers on every machine
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
                    "attention": "sdpa" if torch.cuda.is_available() else "eager",  # the faster one there
                    "item_pixels": pixels,
                    "question_pixels": pixels,
                },
                "adapter": fields,
                "reasoner": {"max_prompt_tokens": 8192},
            }
        )


def _workers() -> int:
    """Processes that prefetch the inputs of steps: none where the CPU itself does the steps."""
    return min(12, (os.cpu_count() or 2) - 1) if torch.cuda.is_available() else 0


def _random_backbone(folder: Path, parts: Path) -> None:
    write_random_backbone(folder, "qwen2_5_vl")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    merge_trained(model, parts)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.countries.train.stages", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all outputs")
    parser.add_argument(
        "--stage", choices=STAGES, help="this stage alone; default: all, `samples` only after jobs.ingest"
    )
    parser.add_argument("--wheels", type=Path, help="folder of the SmolLM2 wheel; default FOLDER/wheels")
    parser.add_argument("--items", type=Path, help="items/ that jobs.ingest made; default FOLDER/items")
    parser.add_argument(
        "--sizes",
        choices=SIZES,
        default="real",
        help="real: for two cores; large: more steps of larger batches, for a GPU; small: a test on a random backbone",
    )
    parser.add_argument(
        "--steps",
        action="append",
        default=[],
        metavar="STAGE=N",
        help="replaces a stage's number of steps",
    )
    parser.add_argument("--warmup-from", type=Path, help="adapter that `warmup` starts from, in place of a new one")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    steps = {name: int(count) for name, _, count in (text.partition("=") for text in args.steps)}
    run = Run(args.out, args.sizes, args.wheels, args.items, steps, args.warmup_from)
    names = STAGES if (run.items / "manifest.json").exists() else STAGES[:-1]
    for name in [args.stage] if args.stage else names:
        run.stage(name)


if __name__ == "__main__":
    main()
