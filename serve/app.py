"""The Serve application: `serve run serve/config.yaml --working-dir .`

Ingress -> Retriever -> Knowledge; Ingress -> Knowledge, MemoryEncoder, Reasoner
"""

from __future__ import annotations

from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.serve import Application, Deployment

from comem_ray.config import load_config
from serve.binding import bound_host, refuse_public_bind
from serve.deployments.ingress import Ingress
from serve.deployments.knowledge import KnowledgeDeployment
from serve.deployments.memory_encoder import MemoryEncoderDeployment
from serve.deployments.reasoner import ReasonerDeployment
from serve.deployments.retriever import RetrieverDeployment
from serve.http.keys import load_keys
from serve.start import check_artifacts, in_one_sentence


class AppArgs(BaseModel):
    """`args` of the application: the run's configuration file, relative to the working directory, and overrides."""

    model_config = ConfigDict(extra="forbid")

    config: str
    overrides: list[str] = []


# What `build_app` runs with where nobody says otherwise; serve/config.yaml does.
_MODEL = {"max_ongoing_requests": 128, "max_queued_requests": 256, "ray_actor_options": {"num_cpus": 0.2}}
_KNOWLEDGE = {"max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.1}}
# No limit on its queue: what is too much is refused by the API itself, in its own words.
_INGRESS = {"max_ongoing_requests": 4096, "ray_actor_options": {"num_cpus": 0.1}}


def build_app(args: dict[str, Any]) -> Application:
    """The bound graph of AppArgs.

    Raises StartError (a ValueError) where they, the configuration, or the artifacts that it names cannot be used.
    """
    with in_one_sentence():
        checked = AppArgs.model_validate(args)
        config = load_config(checked.config, checked.overrides)
        keys = load_keys(config.api)
        if ray.is_initialized():  # else nothing listens, and the graph is made by a test or a tool
            refuse_public_bind(bound_host(), keys)
        generations = check_artifacts(config)
    knowledge = _deployment("Knowledge", KnowledgeDeployment, _KNOWLEDGE).bind(config, generations)
    retriever = _deployment("Retriever", RetrieverDeployment, _MODEL).bind(config, generations, knowledge)
    encoder = _deployment("MemoryEncoder", MemoryEncoderDeployment, _MODEL).bind(config, generations)
    reasoner = _deployment("Reasoner", ReasonerDeployment, _MODEL).bind(config, generations)
    ingress = _deployment("Ingress", Ingress, _INGRESS)
    return ingress.bind(config, generations, knowledge, retriever, encoder, reasoner)


def _deployment(name: str, cls: type, options: dict[str, Any]) -> Deployment:
    return ray_serve.deployment(name=name, **options)(cls)
