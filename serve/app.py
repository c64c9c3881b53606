"""The Serve application: `serve run serve/config.yaml --working-dir .`

Ingress -> Retriever, MemoryEncoder, Reasoner
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.serve import Application, Deployment

from comem_ray.config import load_config
from serve.deployments import Ingress, MemoryEncoder, Reasoner, Retriever


class AppArgs(BaseModel):
    """`args` of the application: the run's configuration file, relative to the working directory, and overrides."""

    model_config = ConfigDict(extra="forbid")

    config: str
    overrides: list[str] = []


# What a bare `build_app` runs with; serve/config.yaml sets its own.
_MODEL = {"max_ongoing_requests": 32, "max_queued_requests": 64, "ray_actor_options": {"num_cpus": 0.2}}
# No limit on its queue: the models' queues say when there is no room, in the API's own words.
_INGRESS = {"max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.2}}


def build_app(args: dict[str, Any]) -> Application:
    """The bound graph of AppArgs. Raises ValueError (ConfigError) where they or the configuration cannot be used."""
    checked = AppArgs.model_validate(args)
    config = load_config(checked.config, checked.overrides)
    models = [_deployment(model, _MODEL).bind(config) for model in (Retriever, MemoryEncoder, Reasoner)]
    return _deployment(Ingress, _INGRESS).bind(config, *models)


def _deployment(cls: type, options: dict[str, Any]) -> Deployment:
    return ray_serve.deployment(**options)(cls)
