"""Compiled layers: a training step in two thirds of the time, as elementwise operations are fused.

On two cores matrix products are fast (bfloat16 instructions), and what stands between them takes most of a step.
"""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

log = logging.getLogger(__name__)


def compile_layers(model: Any) -> None:
    """Compiles the language model's layers, in place, for any batch and length; names and weights stay as they are.

    One after the other, since they share one piece of code. Without a C++ compiler they stay as they are.
    """
    if not shutil.which(os.environ.get("CXX", "g++")):
        log.warning("no C++ compiler (g++): layers are not compiled, and a step takes half as long again or more")
        return
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=True)
