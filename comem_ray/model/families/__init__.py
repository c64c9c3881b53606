"""The families of backbones: one small module for each way to see images, and the table of them by `model_type`.

Nothing outside of this package asks which family a model is of.
"""

from __future__ import annotations

from typing import Any

from comem_ray.model.families.anyres import LLAVA_NEXT, LLAVA_ONEVISION
from comem_ray.model.families.family import Family
from comem_ray.model.families.idefics3 import IDEFICS3, SMOLVLM
from comem_ray.model.families.internvl import INTERNVL
from comem_ray.model.families.llava import LLAVA
from comem_ray.model.families.qwen import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen2_vl": QWEN2_VL,
    "qwen3_vl": QWEN3_VL,
    "llava": LLAVA,
    "llava_next": LLAVA_NEXT,
    "llava_onevision": LLAVA_ONEVISION,
    "idefics3": IDEFICS3,
    "smolvlm": SMOLVLM,
    "internvl": INTERNVL,
}


def family_of(settings: Any) -> Family:
    """The family of a model, by its configuration. A checkpoint of another family is refused when it is loaded."""
    return FAMILIES[settings.model_type]
