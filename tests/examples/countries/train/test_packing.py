"""Packed prompts have the hidden states that each has alone."""

from collections.abc import Sequence

import pytest
import torch
from support.tiny import image
from torch import Tensor

from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import ControlText, ImagePart, PlainText
from examples.countries.train.packing import SHARED, PackedPrompts, pack, packed_hidden_states

MEMORY = 8  # memory vectors before a prompt with memory


@pytest.fixture(scope="module")
def backbone(make_config) -> Backbone:
    return load_backbone(make_config().backbone)


def item_prompts(backbone: Backbone, count: int) -> list[TokenSequence]:
    """Prompts with the same item, then an image and a question of their own."""
    item = [ControlText("<|im_start|>user\n"), ImagePart(image(0), "item"), PlainText("Atlantis: an island.")]
    own = [[ImagePart(image(n, 40 + 28 * n), "question"), PlainText(f"Question {n}" + "?" * n)] for n in range(count)]
    return [backbone.sequencer.sequence([*item, *parts]) for parts in own]


def memory_prompts(backbone: Backbone, count: int) -> list[TokenSequence]:
    """Prompts with the same memory, then an image and a question of their own."""
    start = ControlText("<|im_start|>user\n")
    own = [[ImagePart(image(9 + n), "question"), PlainText("Which? " * (count - n))] for n in range(count)]
    return [backbone.sequencer.sequence([start, *parts], memory=MEMORY) for parts in own]


@torch.no_grad()
def hidden_alone(backbone: Backbone, prompt: TokenSequence, memory: Tensor) -> Tensor:
    batch = backbone.sequencer.batch([prompt], padding="left")
    embeds = backbone.embed(batch, backbone.image_features(batch), memory if prompt.memory else None)
    return backbone.hidden_states(batch, embeds)[0]


@torch.no_grad()
def hidden_packed(backbone: Backbone, packed: Sequence[PackedPrompts], memory: Tensor) -> list[Tensor]:
    """Hidden states of every packed sequence, without padding."""
    batch = backbone.sequencer.batch([p.sequence for p in packed], padding="left")
    embeds = backbone.embed(batch, backbone.image_features(batch), memory)
    hidden = packed_hidden_states(backbone, batch, embeds, packed)
    return [row[len(row) - len(p) :] for row, p in zip(hidden, packed, strict=True)]


def test_hidden_states_are_those_of_each_prompt_alone(backbone: Backbone) -> None:
    memory = torch.randn(MEMORY, backbone.width, generator=torch.Generator().manual_seed(0))
    groups = [item_prompts(backbone, 3), memory_prompts(backbone, 2), item_prompts(backbone, 1)]
    packed = [pack(backbone, group, shared) for group, shared in zip(groups, (1, 0, 1), strict=True)]
    assert len({len(p) for p in packed}) == 3  # so that there is padding
    for prompts, p, hidden in zip(groups, packed, hidden_packed(backbone, packed, memory), strict=True):
        for number, prompt in enumerate(prompts):
            visible = [i for i, branch in enumerate(p.branches) if branch in (SHARED, number)]
            alone = hidden_alone(backbone, prompt, memory)
            torch.testing.assert_close(hidden[visible], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("prompts_of", "shared"), [(item_prompts, 1), (memory_prompts, 0)])
def test_a_beginning_and_its_branches_are_the_prompts(backbone: Backbone, prompts_of, shared: int) -> None:
    prompts = prompts_of(backbone, 3)
    packed, token = pack(backbone, prompts, shared), backbone.sequencer.image_token_id
    ids = [None] * packed.sequence.memory + packed.sequence.ids
    start = packed.branches.count(SHARED)
    assert start > prompts[0].memory
    assert len(packed) == start + sum(len(p) - start for p in prompts)
    for number, prompt in enumerate(prompts):
        end = packed.end(number)
        assert ids[end - (len(prompt) - start) : end] == prompt.ids[start - prompt.memory :]
        rows, columns = prompt.grids[shared][1:]
        own = packed.indices(number, token)
        assert len(own) == rows * columns // 4  # the tokens of its own image: of 2 x 2 patches each
        assert all(ids[i] == token and packed.branches[i] == number for i in own)


def test_equal_prompts_have_a_branch_each(backbone: Backbone) -> None:
    prompt = backbone.sequencer.sequence([ControlText("<|im_start|>"), PlainText("Which country?")])
    packed = pack(backbone, [prompt, prompt], 0)
    assert packed.branches == [SHARED] * (len(prompt) - 1) + [0, 1]
    assert packed.positions[0].tolist() == [*range(len(prompt)), len(prompt) - 1]


def test_prompts_without_the_same_beginning_are_refused(backbone: Backbone) -> None:
    texts = [backbone.sequencer.sequence([PlainText("Which?")], memory=memory) for memory in (0, MEMORY)]
    with pytest.raises(ValueError, match="must begin with the same memory and images"):
        pack(backbone, texts, 0)
    with pytest.raises(ValueError, match="must begin with the same memory and images"):
        pack(backbone, texts[:1], 1)
