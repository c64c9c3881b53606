"""The demo's trained model answers from memory: another item's memory gives the other item's answer."""

from pathlib import Path

import pytest

from comem_ray.config import load_config
from comem_ray.model.backbone import load_backbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Prompt, Reasoner
from examples.countries.world.countries import held_out_countries
from examples.countries.world.knowledge import item_image
from examples.countries.world.questions import answer_text, question_image, question_text
from examples.countries.world.sentences import item_text

FACT = "currency"
SEED = 5  # of the questions' views


@pytest.fixture(scope="module")
def countries():
    """Eight countries that were held out of training, no two with the same currency."""
    by_fact = {answer_text(c, FACT): c for c in held_out_countries()}
    return list(by_fact.values())[:8]


@pytest.fixture(scope="module")
def answers(countries, demo_home: Path):
    """The reasoner's answers for each country's image, with memory `own`, `other` (the next country's) and none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMEM_HOME", str(demo_home))
        config = load_config("configs/demo.yaml")
        backbone = load_backbone(config.backbone)
        encoder = MemoryEncoder(config, backbone=backbone)
    memory = encoder.encode([(item_text(c, "en"), item_image(c)) for c in countries])
    reasoner = Reasoner(config, backbone=backbone)

    def ask(mode, memories):
        prompts = [
            Prompt(question_text(FACT), question_image(c, SEED), mode, memory=None if m is None else m[None])
            for c, m in zip(countries, memories, strict=True)
        ]
        return [a.text for a in reasoner.answer(prompts)]

    return {
        "own": ask("memory", memory),
        "other": ask("memory", memory.roll(-1, 0)),
        "none": ask("none", [None] * len(countries)),
    }


def count_right(answers, countries):
    """The number of answers that hold their country's currency."""
    return sum(answer_text(c, FACT).lower() in text.lower() for text, c in zip(answers, countries, strict=True))


def test_its_own_memory_gives_the_right_answer(answers, countries):
    assert count_right(answers["none"], countries) <= 1
    assert count_right(answers["own"], countries) >= 6


def test_another_memory_gives_the_other_answer(answers, countries):
    others = countries[1:] + countries[:1]
    assert count_right(answers["other"], others) >= 6
    assert count_right(answers["other"], countries) == 0
