"""The model card of an exported adapter: what it is, how it is loaded, what was measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comem_ray.artifacts import ArtifactError, load_manifest
from comem_ray.config import Config
from comem_ray.evaluation.predictions import STAGE
from comem_ray.model.adapter import REASONER_FOLDER, encoder_identity

NOTHING = "Nothing was measured of this adapter in the run that it was exported from."
_PEFT = """```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText

model = AutoModelForImageTextToText.from_pretrained("{base}")
encoder = PeftModel.from_pretrained(model, ".")     # the language model and vision tower of the memory encoder
```"""


def model_card(config: Config, facts: Mapping[str, Any], base: str | None, loras: Iterable[str], merged: bool) -> str:
    """The text of README.md. `facts` are those of adapter.json, `base` the backbone's name on the hub, if it has one,
    `loras` the folders of the LoRAs.
    """
    second = REASONER_FOLDER in set(loras)
    parts = [_front_matter(base), f"# {config.name}: a CoMEM adapter", _what(base), _loading(base, second)]
    if merged:
        parts.append(_merged(second))
    parts += [
        "## Sizes",
        _sizes(facts),
        "## How good is it?",
        measured(config),
        "## How was it run?",
        _settings(config),
    ]
    return "\n\n".join(parts) + "\n"


def measured(config: Config) -> str:
    """The tables of the run's evaluation (report.md), if it is finished and of this encoder; else a sentence."""
    folder = config.folder("evaluation")
    try:
        manifest = load_manifest(folder, STAGE)
        text = (folder / "report.md").read_text(encoding="utf-8").strip()
    except (ArtifactError, OSError):
        return NOTHING
    if manifest.identity.get("encoder") != encoder_identity(config):
        return f"{NOTHING} (It holds an evaluation of another encoder.)"
    return f"Evaluation of the run {config.name}, generation {manifest.generation}.\n\n{text}"


def _front_matter(base: str | None) -> str:
    lines = ["library_name: peft", "pipeline_tag: image-text-to-text", "tags: [comem, lora, retrieval, memory]"]
    return "\n".join(["---", *([f"base_model: {base}"] if base else []), *lines, "---"])


def _what(base: str | None) -> str:
    return (
        "It turns a knowledge item, an image with a text, into 8 vectors that a frozen vision-language model reads in "
        "front of a\nquestion: *Towards General Continuous Memory for Vision-Language Models*, "
        "[arXiv 2505.17670](https://arxiv.org/abs/2505.17670).\n"
        f"The backbone is {base or 'named in comem.yaml'}; `adapter.json` holds the fingerprint of its weights."
    )


def _loading(base: str | None, second: bool) -> str:
    lines = [
        "## How is it loaded?",
        "By CoMEM on Ray: set `adapter.path` of a configuration to this folder, or take `comem.yaml`.",
        "The LoRA alone, by PEFT:",
        _PEFT.format(base=base or "the backbone"),
    ]
    if second:
        lines.append(f"`{REASONER_FOLDER}/` is the LoRA of the model that answers, which is not the base here.")
    return "\n\n".join(lines)


def _merged(second: bool) -> str:
    answers = "`merged_reasoner/`, the model that answers" if second else "the base, unchanged, answers"
    return (
        "## What is merged?\n\n"
        "`merged/` is the backbone with the LoRA of the encoder added to its weights, for engines that take no\n"
        f"adapter; {answers}. The Q-Former is not in it."
    )


def _sizes(facts: Mapping[str, Any]) -> str:
    fields = {
        f"{part}: {name}": value for part in ("qformer", "lora") for name, value in (facts.get(part) or {}).items()
    }
    rows = [f"| {name} | {value} |" for name, value in fields.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _settings(config: Config) -> str:
    return "\n".join(_setting_lines(config))


def _setting_lines(config: Config) -> Iterator[str]:
    yield "| field | value |"
    yield "|---|---|"
    for limits in ("item_pixels", "question_pixels"):
        value = getattr(config.backbone, limits)
        yield f"| backbone.{limits} | {value.min or 'no minimum'} to {value.max or 'no maximum'} |"
    for field in ("item_order", "question_vision", "temperature", "top_p", "repetition_penalty", "max_new_tokens"):
        yield f"| reasoner.{field} | {getattr(config.reasoner, field)} |"
