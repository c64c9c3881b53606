"""Knowledge that is added, replaced and deleted: retrievable and in memory for the next question, and never after."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.local_service import LocalService, on_the_cpu
from support.serving import FinishedRun, as_base64, row
from support.tiny import png

from comem_ray.config import Config
from serve.http.bodies import AnswerRequest, RetrieveRequest
from serve.http.errors import ApiError
from serve.http.item_bodies import ItemBody

NEW = 300  # images of numbers from here on are of no item of the run


def body(n: int, text: str = "A new thing.", language: str | None = "en") -> ItemBody:
    return ItemBody(image=as_base64(png(NEW + n)), title=f"New {n}", text=text, language=language)


def item_id_of(statuses: dict[str, str]) -> str:
    ((item_id, _),) = statuses.items()
    return item_id


@pytest.fixture
def config(run: FinishedRun, tmp_path: Path) -> Config:
    shutil.copytree(run.config.folder("items").parent, tmp_path / "run")
    return run.config.model_copy(update={"root": str(tmp_path / "run")})


@pytest.fixture
def with_service(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """Runs a coroutine function with a service over `config`; a second call is a restart."""
    on_the_cpu(monkeypatch)
    services: list[LocalService] = []

    def run(work: Callable[[LocalService], Any]) -> Any:
        async def main() -> Any:
            services.append(LocalService(config))
            try:
                return await work(services[-1])
            finally:
                services[-1].close()

        return asyncio.run(main())

    yield run
    for service in services:
        service.close()


async def nearest(service: LocalService, n: int, k: int = 1, **fields: Any) -> list[str]:
    """Ids of the items nearest to the image of new item `n`."""
    request = RetrieveRequest(image=as_base64(png(NEW + n)), top_k=k, **fields)
    return [source["item_id"] for source in (await service.flow.retrieve(request))["sources"]]


async def add(service: LocalService, *bodies: ItemBody, key: str | None = None) -> dict[str, str]:
    return await service.flow.editor.add(bodies, key, f"digest {[b.model_dump() for b in bodies]}")


async def ask(service: LocalService, image: bytes, mode: str = "memory", k: int = 3) -> dict[str, Any]:
    request = AnswerRequest(question="What is it?", image=as_base64(image), mode=mode, top_k=k)  # type: ignore[arg-type]
    return await service.flow.answer(await service.flow.prepare(service.flow.checks.question(request), "me"))


def test_an_added_item_is_there_for_the_next_question(with_service: Any) -> None:
    async def work(service: LocalService) -> None:
        item_id = item_id_of(await add(service, body(1)))
        assert await nearest(service, 1) == [item_id]
        assert (await nearest(service, 1, by="both", text="New 1: A new thing."))[0] == item_id
        for mode in ("memory", "rag"):
            answer = await ask(service, png(NEW + 1), mode)
            assert answer["sources"][0]["item_id"] == item_id
            assert answer["sources"][0]["text"] == "New 1: A new thing."
            assert answer["usage"]["memory_vectors"] == (24 if mode == "memory" else 0)
        item, live = await service.flow.item(item_id, image=True)
        assert (item.title, item.language, live) == ("New 1", "en", True)

    with_service(work)


def test_its_memory_is_what_the_encoder_makes_of_it(with_service: Any, config: Config) -> None:
    async def work(service: LocalService) -> None:
        item_id = item_id_of(await add(service, body(1)))
        item, _ = await service.flow.item(item_id, image=True)
        encoded = await service.encoder.encode([(item.text, item.image)])  # type: ignore[list-item]
        stored = await service.knowledge.memory([item_id], service.flow.knowledge.encoder)
        assert np.array_equal(stored[item_id], encoded[0])

    with_service(work)


def test_a_deleted_item_never_appears_again(with_service: Any, run: FinishedRun) -> None:
    """One of the shards and one of the journal; also after a restart."""

    async def work(service: LocalService) -> str:
        new = item_id_of(await add(service, body(1)))
        for item_id in (new, run.ids[7]):
            assert await service.flow.editor.delete(item_id, None, "") == {item_id: "deleted"}
        await gone(service, new)
        return new

    async def gone(service: LocalService, new: str) -> None:
        answer = await ask(service, row(7)["image"], k=20)
        assert len(answer["sources"]) == 20
        assert run.ids[7] not in {s["item_id"] for s in answer["sources"]}
        assert new not in await nearest(service, 1, 20)
        for item_id in (new, run.ids[7]):
            with pytest.raises(ApiError, match="no item") as raised:
                await service.flow.item(item_id)
            assert raised.value.status_code == 404
            with pytest.raises(ApiError, match="no item"):
                await service.flow.editor.delete(item_id, None, "")

    new = with_service(work)
    with_service(lambda service: gone(service, new))


def test_a_replaced_item_keeps_its_id_and_has_its_new_content(with_service: Any, run: FinishedRun) -> None:
    async def work(service: LocalService) -> None:
        new = item_id_of(await add(service, body(1)))
        for item_id, n in ((new, 2), (run.ids[7], 3)):
            assert await service.flow.editor.replace(item_id, body(n), None, "") == {item_id: "replaced"}
            assert await nearest(service, n) == [item_id]
            item, live = await service.flow.item(item_id)
            assert (item.text, live) == (f"New {n}: A new thing.", True)
            answer = await ask(service, png(NEW + n), "rag")
            assert answer["sources"][0]["text"] == f"New {n}: A new thing."
        assert (await ask(service, row(7)["image"], k=20))["sources"][0]["item_id"] != run.ids[7]
        assert await service.flow.editor.replace(new, body(2), None, "") == {new: "unchanged"}
        with pytest.raises(ApiError, match="no item"):
            await service.flow.editor.replace("0" * 24, body(2), None, "")

    with_service(work)


def test_an_item_may_be_deleted_and_added_again(with_service: Any) -> None:
    async def work(service: LocalService) -> None:
        statuses = await add(service, body(1))
        (item_id,) = statuses
        assert await add(service, body(1)) == {item_id: "unchanged"}
        await service.flow.editor.delete(item_id, None, "")
        assert await add(service, body(1)) == {item_id: "added"}
        assert await nearest(service, 1) == [item_id]

    with_service(work)


def test_what_was_added_survives_a_restart(with_service: Any) -> None:
    async def first(service: LocalService) -> list[str]:
        return list(await add(service, *(body(n) for n in range(5))))

    async def second(service: LocalService) -> list[str]:
        return [(await nearest(service, n))[0] for n in range(5)]

    assert with_service(first) == with_service(second)


def test_a_language_that_only_live_items_have(with_service: Any) -> None:
    async def work(service: LocalService) -> None:
        with pytest.raises(ApiError, match="no knowledge item is in language 'ja'"):
            await nearest(service, 1, language="ja")
        item_id = item_id_of(await add(service, body(1, language="ja")))
        assert await nearest(service, 2, 5, language="ja") == [item_id]

    with_service(work)


def test_an_idempotency_key_does_nothing_twice(with_service: Any) -> None:
    async def work(service: LocalService) -> None:
        first = await add(service, body(1), key="k")
        (item_id,) = first
        await service.flow.editor.delete(item_id, None, "")
        assert await add(service, body(1), key="k") == first  # the answer to the first request
        with pytest.raises(ApiError, match="no item"):
            await service.flow.item(item_id)
        with pytest.raises(ApiError, match="another request") as raised:
            await add(service, body(2), key="k")
        assert (raised.value.status_code, raised.value.type) == (409, "idempotency_key_reused")

    with_service(work)


def test_all_or_none(with_service: Any) -> None:
    async def work(service: LocalService) -> None:
        broken = body(2).model_copy(update={"image": as_base64(b"not an image")})
        untitled = ItemBody(image=as_base64(png(NEW)), language="en")
        for wrong, field in ((broken, "items.1.image"), (untitled, "items.1.text")):
            with pytest.raises(ApiError) as raised:
                await add(service, body(1), wrong, body(3))
            assert (raised.value.status_code, raised.value.field) == (422, field)
        assert (await service.flow.listing.page(None, 1, None))[2] == 40
        with pytest.raises(ApiError, match="limit is 100"):
            await add(service, *[body(1)] * 101)

    with_service(work)


def test_writers_and_readers_at_once(with_service: Any, run: FinishedRun) -> None:
    """Each read after a write's answer sees it; nothing is lost."""

    async def work(service: LocalService) -> None:
        async def writer(start: int) -> None:
            for n in range(start, start + 5):
                item_id = item_id_of(await add(service, body(n)))
                assert await nearest(service, n) == [item_id]
                if n % 2:
                    await service.flow.editor.delete(item_id, None, "")
                    assert await nearest(service, n) != [item_id]

        await asyncio.gather(*(writer(5 * w) for w in range(4)))
        items, _, total = await service.flow.listing.page(None, 100, None)
        assert total == len(items) == 40 + 10

    with_service(work)


def test_pages_hold_every_item_once(with_service: Any, run: FinishedRun) -> None:
    async def work(service: LocalService) -> None:
        added = [item_id_of(await add(service, body(n))) for n in range(7)]
        await service.flow.editor.delete(run.ids[3], None, "")
        await service.flow.editor.replace(run.ids[4], body(20), None, "")
        for limit in (1, 3, 7, 8, 100):
            ids, cursor = list[str](), None
            while True:
                page, cursor, total = await service.flow.listing.page(cursor, limit, None)
                ids += [item.item_id for item, _ in page]
                if cursor is None:
                    break
            base = [i for n, i in enumerate(run.ids) if n not in (3, 4)]
            assert ids == [run.ids[4], *reversed(added), *base]
            assert total == len(ids)
        with pytest.raises(ApiError, match="next_cursor"):
            await service.flow.listing.page("base:x", 5, None)

    with_service(work)


def test_search_finds_by_text(with_service: Any, run: FinishedRun) -> None:
    async def work(service: LocalService) -> None:
        item_id = item_id_of(await add(service, body(1)))
        listed = (await service.flow.find_items("New 1: A new thing.", 3, None))["items"]
        assert (listed[0]["item_id"], listed[0]["live"]) == (item_id, True)
        assert listed[0]["score"] == pytest.approx(1, abs=1e-3)
        assert json.dumps(listed)

    with_service(work)


def test_a_second_writer_is_refused_by_name(with_service: Any, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.deployments import knowledge
    from serve.start import StartError

    monkeypatch.setattr(knowledge, "LOCK_WAIT_S", 0.3)

    async def work(service: LocalService) -> None:
        with pytest.raises(StartError, match=r"process \d+"):
            LocalService(config)

    with_service(work)


def test_a_full_journal_says_what_to_do(with_service: Any, config: Config) -> None:
    async def work(service: LocalService) -> None:
        service.knowledge.config = config.model_copy(update={"live": config.live.model_copy(update={"max_changes": 2})})
        await add(service, body(1), body(2))
        with pytest.raises(ApiError, match=r"jobs\.compact") as raised:
            await add(service, body(3))
        assert raised.value.status_code == 507

    with_service(work)
