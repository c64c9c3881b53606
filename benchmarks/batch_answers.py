"""How often an answer in a batch differs from the answer to the same question alone, and what a batch saves.

    python -m benchmarks.batch_answers --precision bfloat16 --questions 30

Asks the demo's model (`python -m examples.countries.prepare` makes it below $COMEM_HOME) about countries, in each mode,
with the country's own item: once in batches, once with `reasoner.batch_invariant`. Prints one line of JSON per mode.
For times, set OMP_NUM_THREADS=1.

`--float32-products` is for a CPU without bfloat16 instructions, which would take a minute per question: a Linear then
computes in float32 and rounds its result, as bfloat16 hardware does with its float32 sums.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from comem_ray.config import Config, load_config
from comem_ray.model.adapter import attach_adapter
from comem_ray.model.backbone import load_backbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Completion, Prompt, Reasoner, make_prompt
from comem_ray.prompts import MODES, Mode
from examples.countries.world.countries import load_countries
from examples.countries.world.questions import FACTS, question_image, question_text
from examples.countries.world.sentences import item_text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml", help="configuration with the models")
    parser.add_argument("--precision", default="bfloat16", help="backbone.precision")
    parser.add_argument("--questions", type=int, default=30, help="questions per mode")
    parser.add_argument("--batch", type=int, default=8, help="questions decoded together")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="modes to ask in")
    parser.add_argument("--float32-products", action="store_true", help="see above")
    options = parser.parse_args(arguments)
    config = load_config(options.config, [f"backbone.precision={options.precision}"])
    backbone = load_backbone(config.backbone)
    if options.float32_products:
        use_float32_products(backbone.model)
    encoder = MemoryEncoder(config, backbone=backbone, adapter=attach_adapter(config.adapter, backbone))
    for mode in options.modes:
        prompts = list(itertools.islice(questions(mode, encoder), options.questions))
        together, batched = answers(config, encoder, prompts, options.batch, False)
        alone, single = answers(config, encoder, prompts, options.batch, True)
        differing = [i for i, pair in enumerate(zip(together, alone, strict=True)) if pair[0] != pair[1]]
        figures = {"mode": mode, "precision": options.precision, "batch": options.batch, "questions": len(prompts)}
        figures |= {"differing": len(differing), "cpu_seconds_in_batches": round(batched, 1)}
        print(json.dumps(figures | {"cpu_seconds_alone": round(single, 1)}), flush=True)
        for i in differing[:3]:
            print("   ", json.dumps([prompts[i].text, together[i].text, alone[i].text], ensure_ascii=False), flush=True)


def use_float32_products(model: nn.Module) -> None:
    """Makes every Linear compute in float32 and round its result to the dtype of its input."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = partial(
                _product, module.weight.float(), None if module.bias is None else module.bias.float()
            )


def _product(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    return linear(inputs.float(), weight, bias).to(inputs.dtype)


def questions(mode: Mode, encoder: MemoryEncoder) -> Iterator[Prompt]:
    """Prompts about one country after the other, a fact each, with the country's item and another view of its map."""
    for country, fact in zip(load_countries(), itertools.cycle(FACTS), strict=False):
        item = (item_text(country, "en"), question_image(country, seed=1))
        memory = encoder.encode([item]) if mode == "memory" else None
        yield make_prompt(question_text(fact), question_image(country, seed=2), mode, [item], memory)


def answers(
    config: Config, encoder: MemoryEncoder, prompts: Sequence[Prompt], batch: int, invariant: bool
) -> tuple[list[Completion], float]:
    """The completions, and the processor's seconds that they took: a busy machine does not change these."""
    settings = config.reasoner.model_copy(update={"batch_invariant": invariant})
    reasoner = Reasoner(config.model_copy(update={"reasoner": settings}), backbone=encoder.backbone)
    start, completions = time.process_time(), list[Completion]()
    for first in range(0, len(prompts), batch):
        completions += reasoner.answer(prompts[first : first + batch])
    return completions, time.process_time() - start


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
