"""The ingress: the HTTP API over a Flow."""

from __future__ import annotations

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from comem_ray.config import Config
from serve.http.keys import load_keys
from serve.local_ports import listen_locally
from serve.messages import Generations
from serve.start import in_one_sentence


@ray_serve.ingress()
class Ingress:
    """The HTTP API. Its own queue has no limit: the queues of the models say when there is no room."""

    def __init__(
        self,
        config: Config,
        generations: Generations,
        knowledge: DeploymentHandle,
        retriever: DeploymentHandle,
        memory_encoder: DeploymentHandle,
        reasoner: DeploymentHandle,
    ):
        from serve.flow import Flow

        listen_locally()

        with in_one_sentence():
            self.config, self.keys = config, load_keys(config.api)
            self.flow = Flow(config, generations, knowledge, retriever, memory_encoder, reasoner)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from serve.http.api import build_api

        return build_api(self.flow, self.config, self.keys)
