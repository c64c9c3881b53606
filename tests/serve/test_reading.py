"""What the ingress reads: from the shards or the journal; a folder that is away is a 503, until it is back."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.local_service import LocalService, on_the_cpu
from support.serving import NOT_STORED, FinishedRun, image_of

from comem_ray.pipeline import Pipeline
from serve.http.bodies import AnswerRequest
from serve.http.errors import ApiError
from serve.messages import ItemHit, SearchReply


async def ask(service: LocalService, n: int) -> dict[str, Any]:
    body = AnswerRequest(question="What is shown?", image=image_of(n))
    return await service.flow.answer(await service.flow.prepare(service.flow.checks.question(body), "me"))


def test_a_folder_that_is_away_is_a_503_until_it_is_back(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_cpu(monkeypatch)
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    config = run.config.model_copy(update={"root": str(tmp_path / "run")})

    async def main() -> None:
        service = LocalService(config)
        assert await service.flow.unready() == {}
        moved = config.folder("memory").rename(tmp_path / "moved")
        assert set(await service.flow.unready()) == {"memory"}
        with pytest.raises(ApiError, match="cannot be read now") as raised:
            await ask(service, 7)
        assert raised.value.status_code == 503
        assert raised.value.headers is not None
        assert raised.value.headers["Retry-After"]
        moved.rename(config.folder("memory"))
        assert await service.flow.unready() == {}
        assert (await ask(service, 7))["sources"][0]["item_id"] == run.ids[7]
        service.close()

    asyncio.run(main())


def test_memory_comes_in_every_way_there_is(
    run: FinishedRun, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, and encoded once for all: equal to the library's; an id that is gone has none."""
    on_the_cpu(monkeypatch)
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    config = run.config.model_copy(update={"root": str(tmp_path / "run")})

    async def main() -> None:
        service = LocalService(config)
        reader, ids = service.flow.knowledge, [run.ids[3], run.ids[NOT_STORED]]
        reply = SearchReply([ItemHit(i, 1.0) for i in ids], reader.base.generations)
        for _ in range(2):
            rows = await reader.memory(reply)
            assert all((rows[i] == pipeline.memory([i])[0]).all() for i in ids)
        assert len(reader._encoded) == 1
        await service.flow.editor.delete(run.ids[3], None, "")
        gone = SearchReply([ItemHit(run.ids[3], 1.0, live=True)], reader.base.generations)
        assert await reader.memory(gone) == {}
        assert await reader.items(gone, image=False) == {}
        service.close()

    asyncio.run(main())
