"""CoMEM on Ray: continuous memory for vision-language models.

    import comem_ray
    comem = comem_ray.load("configs/demo.yaml")
    answer = comem.answer("What is the capital of this country?", image="question.png")

Importing this package loads neither torch nor Ray: what needs them comes with the first use. jobs/ and serve/ run the
library on a cluster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"

if TYPE_CHECKING:
    from comem_ray.answers import Answer, AnswerStream, Question, Source, Usage
    from comem_ray.client import Client
    from comem_ray.pipeline import Pipeline, load

__all__ = ["Answer", "AnswerStream", "Client", "Pipeline", "Question", "Source", "Usage", "load"]

_MODULES = {"Client": "client", "Pipeline": "pipeline", "load": "pipeline"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'comem_ray' has no attribute {name!r}")
    return getattr(import_module(f"comem_ray.{_MODULES.get(name, 'answers')}"), name)
