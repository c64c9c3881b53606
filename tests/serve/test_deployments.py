"""The reasoner's replica, in this process: an image that it was shown ahead is looked at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.tiny import image, png

from comem_ray.model.reasoner import Prompt
from comem_ray.model.reasoner import Reasoner as Model
from serve import deployments
from serve.deployments import LOOKED, Reasoner
from serve.messages import Ask, Refusal, Reply

QUESTION = "Which country is this?"


@pytest.fixture
def replica(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> Reasoner:
    monkeypatch.setattr(deployments, "_device", lambda: "cpu")  # asks Ray, which has no replica here
    return Reasoner(make_config())


@pytest.fixture
def looks(replica: Reasoner) -> list[int]:
    """Grows by one with every pass of the vision tower."""
    passes: list[int] = []
    tower = replica.model.backbone.model.model.visual
    tower.register_forward_pre_hook(lambda _, args, kwargs: passes.append(1), with_kwargs=True)
    return passes


def test_an_answer_uses_the_image_that_was_looked_at(replica: Reasoner, looks: list[int], make_config: Any) -> None:
    async def main() -> Any:
        await replica.look(png(1))
        before = len(looks)
        ahead = await replica.answer(Ask(QUESTION, png(1), "none", 4))
        assert (before, len(looks)) == (1, 1)
        return ahead, await replica.answer(Ask(QUESTION, png(1), "none", 4))

    ahead, again = asyncio.run(main())
    assert len(looks) == 2  # what was looked at serves one question
    assert ahead == again
    assert isinstance(ahead, Reply)
    assert ahead.answer == Model(make_config()).answer([Prompt(QUESTION, image(1), max_new_tokens=4)])[0].text


def test_a_look_at_another_image_or_at_none_changes_nothing(replica: Reasoner, looks: list[int]) -> None:
    async def main() -> list[Any]:
        await replica.look(png(2))
        await replica.look(b"no image")
        return [await replica.answer(Ask(QUESTION, data, "none", 4)) for data in (png(1), b"no image")]

    sound, broken = asyncio.run(main())
    assert isinstance(sound, Reply)
    assert isinstance(broken, Refusal)
    assert len(looks) == 2


def test_images_that_nobody_asks_about_do_not_pile_up(replica: Reasoner) -> None:
    async def main() -> None:
        for seed in range(LOOKED + 4):
            await replica.look(png(seed))

    asyncio.run(main())
    assert len(replica._looked) == LOOKED
