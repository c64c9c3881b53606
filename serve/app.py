"""The Serve application: `serve run serve/config.yaml --working-dir .`

Ingress -> Retriever, MemoryEncoder, Reasoner
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.serve import Application, Deployment

from comem_ray.config import load_config
from serve.deployments.ingress import Ingress
from serve.deployments.memory_encoder import MemoryEncoderDeployment
from serve.deployments.reasoner import ReasonerDeployment
from serve.deployments.retriever import RetrieverDeployment
from serve.start import check_artifacts, in_one_sentence


class AppArgs(BaseModel):
    """`args` of the application: the run's configuration file, relative to the working directory, and overrides."""

    model_config = ConfigDict(extra="forbid")

    config: str
    overrides: list[str] = []


# By the names that the YAML files, logs and dashboards have.
_MODELS = {"Retriever": RetrieverDeployment, "MemoryEncoder": MemoryEncoderDeployment, "Reasoner": ReasonerDeployment}
# What `build_app` runs with where nobody says otherwise; serve/config.yaml does.
_MODEL = {"max_ongoing_requests": 32, "max_queued_requests": 64, "ray_actor_options": {"num_cpus": 0.2}}
# No limit on its queue: the queues of the models say when there is no room, in the API's own words.
_INGRESS = {"max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.2}}


def build_app(args: dict[str, Any]) -> Application:
    """The bound graph of AppArgs.

    Raises StartError (a ValueError) where they, the configuration, or the artifacts that it names cannot be used.
    """
    with in_one_sentence():
        checked = AppArgs.model_validate(args)
        config = load_config(checked.config, checked.overrides)
        generations = check_artifacts(config)
    models = [_deployment(name, model, _MODEL).bind(config, generations) for name, model in _MODELS.items()]
    return _deployment("Ingress", Ingress, _INGRESS).bind(config, generations, *models)


def _deployment(name: str, cls: type, options: dict[str, Any]) -> Deployment:
    return ray_serve.deployment(name=name, **options)(cls)
