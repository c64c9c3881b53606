"""The owner of the journal: a compaction moves every reader to the new shards, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.in_process import run_in_process
from support.live_items import live_item
from support.local_service import LocalService, on_the_cpu
from support.serving import as_base64
from support.tiny import png
from support.tiny_clip import write_clip

from comem_ray.config import Config
from comem_ray.knowledge.live.journal import Journal
from jobs import quickstart
from serve.deployments.knowledge import KnowledgeDeployment
from serve.http.bodies import AnswerRequest, RetrieveRequest
from serve.http.item_bodies import ItemBody
from serve.start import StartError, check_artifacts

ROWS = 6


@pytest.fixture(scope="module")
def base(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    home = tmp_path_factory.mktemp("home")
    rows = []
    for n in range(ROWS):
        (home / f"{n}.png").write_bytes(png(n))
        rows.append({"image": f"{n}.png", "title": f"T{n}", "text": f"Text {n}.", "language": "en"})
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = make_config(
        root=str(home / "run"),
        ingest={"sources": [{"path": str(home / "rows.jsonl")}]},
        clip=write_clip(home)[0],
        index={"recall_queries": 2},
        reasoner={"max_new_tokens": 4},
    )
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch)
        quickstart.run(config)
    return config


@pytest.fixture
def config(base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    on_the_cpu(monkeypatch)
    run_in_process(monkeypatch)
    shutil.copytree(base.root, tmp_path / "run")
    return base.model_copy(update={"root": str(tmp_path / "run")})


def item(n: int) -> ItemBody:
    return ItemBody(image=as_base64(png(700 + n)), title=f"New {n}", text="A thing.", language="en")


async def sources(service: LocalService, seed: int, mode: str = "memory") -> list[dict[str, Any]]:
    body = AnswerRequest(question="What?", image=as_base64(png(seed)), mode=mode, top_k=20)  # type: ignore[arg-type]
    answer = await service.flow.answer(await service.flow.prepare(service.flow.checks.question(body), "me"))
    return answer["sources"]


async def compact(service: LocalService, config: Config) -> dict[str, str]:
    """What jobs.compact does beside a service."""
    await service.knowledge.export()
    quickstart.run(config)
    return await service.knowledge.reload()


async def moved(service: LocalService, folders: dict[str, str]) -> None:
    """Until retriever and reader are at these generations: they move there at the next requests."""
    for _ in range(200):
        await service.flow.retrieve(RetrieveRequest(image=as_base64(png(0)), top_k=1))
        retriever, reader = service.retriever.state.generations, service.flow.knowledge.base.generations
        if retriever.folders == reader.folders == folders:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the readers did not move")


def test_a_compaction_under_a_running_service(config: Config) -> None:
    """Adds, replaces, deletes; folds; the same answers before and after, then changes again on top."""

    async def main() -> None:
        service = LocalService(config)
        edit, ids = service.flow.editor, service.flow.knowledge.base.items.ids
        (new,) = await edit.add([item(1)], None, "1")
        (gone,) = await edit.add([item(2)], None, "2")
        await edit.replace(ids[0], item(3), None, "3")
        await edit.delete(ids[1], None, "4")
        await edit.delete(gone, None, "5")
        before = [(s["item_id"], s["text"]) for s in await sources(service, 701)]
        assert before[0] == (new, "New 1: A thing.")
        assert {i for i, _ in before} == {new, ids[0], *ids[2:]}
        folders = await compact(service, config)
        assert [(s["item_id"], s["text"]) for s in await sources(service, 701)] == before  # wherever each reader is
        await moved(service, folders)
        assert await service.knowledge.waiting() == 0
        for mode in ("memory", "rag"):
            assert [(s["item_id"], s["text"]) for s in await sources(service, 701, mode)] == before
        stored, live = await service.flow.item(ids[0])
        assert (stored.text, live) == ("New 3: A thing.", False)
        listed, cursor, total = await service.flow.listing.page(None, 100, None)
        assert ({i.item_id for i, _ in listed}, cursor, total) == ({i for i, _ in before}, None, len(before))
        await edit.delete(new, None, "6")
        (newer,) = await edit.add([item(4)], None, "7")
        assert (await sources(service, 704))[0]["item_id"] == newer
        assert new not in {s["item_id"] for s in await sources(service, 701)}
        folders = await compact(service, config)  # a second one: the journal forgets the first one's changes
        await moved(service, folders)
        assert service.knowledge.forgotten > 0
        assert (await sources(service, 704))[0]["item_id"] == newer
        service.close()

    asyncio.run(main())


def test_a_reader_never_goes_back(config: Config) -> None:
    """Of two retrievers one may be behind for a while: its replies must not move the ingress back and forth."""

    async def main() -> None:
        service = LocalService(config)
        reader = service.flow.knowledge
        before = reader.base.generations
        await service.flow.editor.add([item(1)], None, "1")
        await moved(service, await compact(service, config))
        now = reader.base.generations
        assert now != before
        reader._follow(before)
        assert reader._moving is None
        assert reader.base.generations == now
        service.close()

    asyncio.run(main())


def test_a_journal_whose_disk_failed_makes_the_replica_unhealthy(config: Config) -> None:
    """It takes no writes until it is opened again, which a new replica does."""
    knowledge = KnowledgeDeployment(config, check_artifacts(config))
    knowledge.check_health()
    assert knowledge.journal is not None
    knowledge.journal._fault = "its disk failed before"
    with pytest.raises(RuntimeError, match="disk failed"):
        knowledge.check_health()
    knowledge.journal.close()


def test_live_items_of_another_clip_model_are_refused_at_the_start(config: Config) -> None:
    journal = Journal(config.folder("live"))
    journal.write([live_item(0)], [])
    journal.close()
    with pytest.raises(StartError, match=r"another: go back to that model, run jobs\.compact"):
        KnowledgeDeployment(config, check_artifacts(config))


def test_a_replica_that_starts_again_serves_what_was_served_last(config: Config) -> None:
    async def main() -> None:
        service = LocalService(config)
        deployed = check_artifacts(config)
        await service.flow.editor.add([item(1)], None, "1")
        folders = await compact(service, config)
        service.close()
        assert KnowledgeDeployment(config, deployed).generations.folders == folders

    asyncio.run(main())


def test_a_retriever_that_slept_through_two_compactions(config: Config) -> None:
    """The changes that it missed are in the shards alone: it must move before it answers."""

    async def main() -> None:
        service, added = LocalService(config), []
        for n in (1, 2):
            added += await service.flow.editor.add([item(n)], None, str(n))
            await compact(service, config)
        assert service.retriever.state.live.seq < service.knowledge.forgotten
        assert (await sources(service, 701))[0]["item_id"] == added[0]
        assert (await sources(service, 702))[0]["item_id"] == added[1]
        service.close()

    asyncio.run(main())
