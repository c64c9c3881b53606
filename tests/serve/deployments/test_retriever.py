"""The retriever's replica in this process: whose fault it is when a search fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.local_service import LocalHandle, on_the_cpu
from support.serving import FinishedRun, row

from comem_ray.artifacts import ArtifactError
from comem_ray.config import LiveConfig
from comem_ray.finite import NotFinite
from serve.deployments.knowledge import KnowledgeDeployment
from serve.deployments.retriever import RetrieverDeployment
from serve.http.errors import api_error
from serve.messages import Refusal, Search, SearchReply
from serve.scheduling.health import FAILURES_UNHEALTHY
from serve.start import check_artifacts

SEARCH = Search(row(7)["image"], "Title 7", 3, "image", None, None)


@pytest.fixture
def retriever(run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> RetrieverDeployment:
    on_the_cpu(monkeypatch)
    config = run.config.model_copy(update={"live": LiveConfig(enabled=False)})
    generations = check_artifacts(config)
    knowledge: Any = LocalHandle(KnowledgeDeployment(config, generations))
    return RetrieverDeployment(config, generations, knowledge)


def test_a_search_that_cannot_be_answered_does_not_fail_the_others(
    run: FinishedRun, retriever: RetrieverDeployment
) -> None:
    searches = [
        SEARCH,
        replace(SEARCH, language="fr"),
        replace(SEARCH, image=b"not an image"),
        replace(SEARCH, image=None),  # with the first one in a call to the model
        replace(SEARCH, by="text"),
    ]
    first, language, broken, without, text = retriever._search(searches)
    assert isinstance(first, SearchReply)
    assert first.hits[0].item_id == run.ids[7]
    assert isinstance(text, SearchReply)
    assert isinstance(broken, Refusal)
    assert (language.type, language.field) == ("nothing_to_search", "language")
    assert (without.type, without.field) == ("nothing_to_search", "image")


def test_a_failing_clip_model_is_our_fault_and_not_the_users(retriever: RetrieverDeployment) -> None:
    with torch.no_grad():
        retriever.state.model.encoder._model.visual.proj.fill_(float("inf"))
    with pytest.raises(NotFinite, match="infinite numbers") as raised:
        asyncio.run(retriever.retrieve(SEARCH))
    assert api_error(raised.value).status_code == 500
    for _ in range(FAILURES_UNHEALTHY):
        with pytest.raises(NotFinite):
            asyncio.run(retriever.retrieve(SEARCH))
    with pytest.raises(RuntimeError, match="checks of the model failed"):
        retriever.check_health()


@pytest.mark.parametrize(
    ("error", "type", "status"),
    [
        (ArtifactError("memory/part-0.safetensors is damaged"), "artifact_damaged", 500),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", 500),
    ],
)
def test_what_only_a_person_can_mend_is_a_refusal(
    retriever: RetrieverDeployment, error: Exception, type: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:

    def fail(*_: Any) -> None:
        raise error

    retriever.state.model.retrieve, works = fail, retriever.state.model.retrieve
    reply = asyncio.run(retriever.retrieve(SEARCH))
    assert isinstance(reply, Refusal)
    assert (reply.type, reply.status) == (type, status)
    assert "Traceback" not in caplog.text or type == "out_of_memory"
    retriever.state.model.retrieve = works
    assert isinstance(asyncio.run(retriever.retrieve(SEARCH)), SearchReply)
