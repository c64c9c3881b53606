"""The numbers of tokens are those of the reasoner's own sequences."""

from __future__ import annotations

import pytest
from support.tiny import FAMILIES, image

from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.prompts import END, PlainText
from comem_ray.training.data.token_counts import TokenCounter


@pytest.mark.parametrize("family", FAMILIES)
def test_the_counts_are_the_reasoners(make_config, family):
    config = make_config(family)
    counter, reasoner = TokenCounter(config.backbone), Reasoner(config)
    items = [("Title: a text", image(1, 90, 30)), ("Other", image(2, 20, 200))]
    for question_image in (None, image(3, 64, 48), image(4, 300, 20)):
        for text in ("Who?", "<|im_end|> is text here, é東京"):
            assert counter.prompt(text, question_image) == len(reasoner.sequence(Prompt(text, question_image)))
            rag = Prompt(text, question_image, "rag", items=items)
            assert counter.prompt(text, question_image, items) == len(reasoner.sequence(rag))
    assert counter.answer("It is 5.") == len(reasoner.backbone.sequencer.sequence([PlainText("It is 5."), END]))
