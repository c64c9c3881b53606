"""The deployments in this process, joined by handles that call them without Ray: the real objects, one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from comem_ray.config import Config
from serve.deployments import memory_encoder, reasoner, retriever
from serve.deployments.knowledge import KnowledgeDeployment
from serve.flow import Flow
from serve.start import check_artifacts


class LocalHandle:
    """Calls a deployment's methods as `ray.serve.handle.DeploymentHandle` does."""

    def __init__(self, deployment: Any):
        self._deployment = deployment

    def __getattr__(self, name: str) -> LocalMethod:
        return LocalMethod(getattr(self._deployment, name))

    def options(self, method_name: str, stream: bool) -> LocalMethod:
        assert stream
        return LocalMethod(lambda *a: LocalStream(getattr(self._deployment, method_name)(*a)))


class LocalMethod:
    def __init__(self, method: Any):
        self._method = method

    def remote(self, *arguments: Any) -> Any:
        return self._method(*arguments)


class LocalStream:
    """What a streaming handle returns: pieces, and a way to cancel."""

    def __init__(self, pieces: AsyncIterator[Any]):
        self._pieces = pieces
        self._closing: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._pieces

    def cancel(self) -> None:
        self._closing = asyncio.ensure_future(self._pieces.aclose())  # type: ignore[attr-defined]


def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (retriever, memory_encoder, reasoner):
        monkeypatch.setattr(module, "device_of_replica", lambda: "cpu")  # asks Ray, which has no replica here


class LocalService:
    """All deployments of a run; `flow` is what the ingress has."""

    def __init__(self, config: Config):
        generations = check_artifacts(config)
        self.knowledge = KnowledgeDeployment(config, generations)
        knowledge = LocalHandle(self.knowledge)
        self.retriever = retriever.RetrieverDeployment(config, generations, knowledge)  # type: ignore[arg-type]
        self.encoder = memory_encoder.MemoryEncoderDeployment(config, generations)
        self.reasoner = reasoner.ReasonerDeployment(config, generations)
        handles: list[Any] = [knowledge, *map(LocalHandle, (self.retriever, self.encoder, self.reasoner))]
        self.flow = Flow(config, generations, *handles)

    def close(self) -> None:
        if self.knowledge.journal is not None:
            self.knowledge.journal.close()
