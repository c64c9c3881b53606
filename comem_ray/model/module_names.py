"""Names of the backbone's modules: today's, and those that earlier software gave to the same modules.

transformers 4.52 moved the language model of Qwen2-VL and Qwen2.5-VL from `model.` to `model.language_model.`, and the
vision tower from `visual.` to `model.visual.`. It did the same for LLaVA and InternVL, whose towers later lost the step
`vision_model.`. Released checkpoints and adapters keep the names of their time.
"""

from __future__ import annotations

import re

# What PEFT, distributed training and torch.compile put in front.
_WRAPPERS = re.compile(
    r"^(?:(?:base_model\.model|module|_orig_mod)\.)+"
    r"(?=model\.|visual\.|language_model\.|lm_head\.|vision_tower\.|multi_modal_projector\.)"
)
_LANGUAGE = re.compile(r"^(?:model\.)?(?:language_model\.)?(?:model\.)?(layers|embed_tokens|norm)\.")
_VISION = re.compile(r"^(?:model\.)?visual\.")
_HEAD = re.compile(r"^language_model\.lm_head\.")
_LLAVA = re.compile(r"^(?:model\.)?(vision_tower|multi_modal_projector|image_newline)(?:\.vision_model)?(?=\.|$)")
_ADAPTER = re.compile(r"\.(lora_[AB])\.(?:[^.]+\.)?weight$")


def current_name(name: str) -> str:
    """Today's name of a module or parameter of the backbone. A name that is unknown comes back as it is."""
    name = _WRAPPERS.sub("", name)
    name = _LANGUAGE.sub(r"model.language_model.\1.", name)
    name = _HEAD.sub("lm_head.", name)
    name = _LLAVA.sub(r"model.\1", name)
    return _VISION.sub("model.visual.", name)


def current_lora_name(name: str) -> str:
    """Today's name of a LoRA matrix, without prefix and adapter name: `model. ... .q_proj.lora_A.weight`."""
    return _ADAPTER.sub(r".\1.weight", current_name(name))


def earlier_names(module: str) -> list[str]:
    """The names that a module had before transformers 4.52, of which an old adapter's target modules speak."""
    rest = module.removeprefix("model.language_model.")
    if rest != module:
        return [f"model.{rest}", f"language_model.model.{rest}"]
    return [module.removeprefix("model.")]
