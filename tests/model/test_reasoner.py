"""The reasoner: modes, positions and decoding, checked against full forward passes of the stock model."""

import dataclasses

import pytest
import torch
from support.tiny import FAMILIES, image
from torch import nn

from comem_ray.finite import NotFinite
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Prompt, PromptTooLong, Reasoner

ITEMS = [(f"Item {i}: " + "words " * i, image(i, 50 + 9 * i, 44)) for i in range(4)]


@pytest.fixture(scope="module", params=FAMILIES)
def world(request, make_config):
    """One copy of the weights: the encoder (adapter on) and the reasoner (adapter off)."""
    config = make_config(request.param)
    encoder = MemoryEncoder(config)
    torch.manual_seed(1)
    for name, parameter in encoder.backbone.model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.1)
    return config, encoder, Reasoner(config, backbone=encoder.backbone), encoder.encode(ITEMS)


def questions(memory) -> list[Prompt]:
    return [
        Prompt("What is this?", image(20)),
        Prompt("And this one, please?", image(21, 100, 40), "memory", memory=memory[:3]),
        Prompt("No image", None, "memory", memory=memory[3:], max_new_tokens=3),
        Prompt("In the prompt?", image(22), "rag", items=ITEMS[:2]),
        Prompt("Nothing was retrieved", image(22), "memory", memory=memory[:0]),
    ]


def full_forward_greedy(reasoner: Reasoner, question: Prompt, steps: int) -> list[int]:
    """Greedy decoding without a cache: the whole sequence anew for each token, positions by the stock code."""
    sequence = reasoner.sequence(question)
    done: list[int] = []
    for _ in range(steps):
        longer = dataclasses.replace(sequence, ids=sequence.ids + done)
        batch, embeds = reasoner.inputs([question], [longer])
        hidden = reasoner.backbone.hidden_states(batch, embeds)
        done.append(int(reasoner.backbone.model.lm_head(hidden[0, -1]).argmax()))
        if done[-1] == reasoner.backbone.sequencer.tokenizer.eos_token_id:
            break
    return done


def test_cached_decoding_of_a_mixed_batch_equals_full_forwards(world):
    _, _, reasoner, memory = world
    prompts = questions(memory)
    answers = reasoner.answer(prompts)
    for question, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            ids = full_forward_greedy(reasoner, question, question.max_new_tokens or 8)
        assert answer.text == reasoner.backbone.sequencer.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.completion_tokens == len(ids)
    assert [a.memory_vectors for a in answers] == [0, 24, 8, 0, 0]
    assert answers[2].completion_tokens <= 3


@pytest.mark.parametrize("vision", ["base", "adapter"])
def test_an_image_encoded_before_takes_its_place(world, vision):
    config, encoder, _, memory = world
    settings = config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"question_vision": vision})})
    reasoner = Reasoner(settings, backbone=encoder.backbone, adapter=encoder.adapter)
    prompts = questions(memory)
    encoded = [dataclasses.replace(q, image=reasoner.encode_image(q.image)) if q.image else q for q in prompts]
    mixed = [b if n % 2 else a for n, (a, b) in enumerate(zip(prompts, encoded, strict=True))]
    for some in (encoded, mixed):
        sequences = [[reasoner.sequence(q) for q in each] for each in (prompts, some)]
        (batch, embeds), (other, others) = reasoner.inputs(prompts, sequences[0]), reasoner.inputs(some, sequences[1])
        torch.testing.assert_close(others, embeds, atol=1e-5, rtol=1e-4)
        assert torch.equal(other.input_ids, batch.input_ids)
        assert torch.equal(encoder.backbone.positions(other), encoder.backbone.positions(batch))
    assert [a.text for a in reasoner.answer(mixed)] == [a.text for a in reasoner.answer(prompts)]


def test_mode_none_is_the_stock_model(world):
    """No memory: the same logits as the stock model gives for token ids and pixels."""
    _, _, reasoner, _ = world
    question = Prompt("What is this?", image(20, 120, 60))
    batch, embeds = reasoner.inputs([question], [reasoner.sequence(question)])
    model = reasoner.backbone.model
    with torch.no_grad():
        logits = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.grids,
            mm_token_type_ids=batch.token_types,
        ).logits
        ours = model.lm_head(reasoner.backbone.hidden_states(batch, embeds))
    torch.testing.assert_close(ours, logits)


def test_memory_is_read_and_its_order_counts(world):
    _, _, reasoner, memory = world

    def logits(given):
        question = Prompt("What?", image(5), "memory", memory=given)
        batch, embeds = reasoner.inputs([question], [reasoner.sequence(question)])
        with torch.no_grad():
            return reasoner.backbone.model.lm_head(reasoner.backbone.hidden_states(batch, embeds)[0, -1])

    assert not torch.allclose(logits(memory[:2]), logits(memory[2:4]), atol=1e-3)
    assert not torch.allclose(logits(memory[:2]), logits(memory[:2].flip(0)), atol=1e-3)


def test_item_order_is_a_field_of_the_configuration(world, make_config):
    config, encoder, reasoner, memory = world
    reversed_ = Reasoner(
        config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"item_order": "best_last"})}),
        backbone=encoder.backbone,
    )
    for forward, backward in [
        (
            Prompt("Q", image(1), "memory", memory=memory),
            Prompt("Q", image(1), "memory", memory=memory.flip(0)),
        ),
        (Prompt("Q", image(1), "rag", items=ITEMS), Prompt("Q", image(1), "rag", items=ITEMS[::-1])),
    ]:
        assert reversed_.answer([forward]) == reasoner.answer([backward])


def test_question_vision_adapter(world):
    """The adapter's vision tower for the question's image, the frozen language model for the rest."""
    config, encoder, reasoner, _ = world
    tuned = Reasoner(
        config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"question_vision": "adapter"})}),
        backbone=encoder.backbone,
        adapter=encoder.adapter,
    )
    with_image, without = Prompt("Q", image(1)), Prompt("Q")
    with torch.no_grad():
        same, other = (r.inputs([with_image], [r.sequence(with_image)])[1] for r in (reasoner, tuned))
        assert not torch.allclose(same, other, atol=1e-3)
        assert torch.equal(*(r.inputs([without], [r.sequence(without)])[1] for r in (reasoner, tuned)))
    assert reasoner.answer([with_image]) == reasoner.answer([with_image])  # and the adapter is off again


def test_streamed_pieces_add_up(world):
    _, _, reasoner, memory = world
    prompts = questions(memory)
    pieces: list[tuple[int, str]] = []
    answers = reasoner.answer(prompts, lambda i, text: pieces.append((i, text)))
    for i, answer in enumerate(answers):
        assert "".join(text for j, text in pieces if j == i) == answer.text
    assert [i for i, _ in pieces] != sorted(i for i, _ in pieces)  # they came in turns, not one answer after another


def test_refusals(world, make_config):
    config, encoder, reasoner, _ = world
    short = Reasoner(
        config.model_copy(update={"reasoner": config.reasoner.model_copy(update={"max_prompt_tokens": 50})}),
        backbone=encoder.backbone,
    )
    with pytest.raises(PromptTooLong, match=r"has \d+ tokens, the limit is 50"):
        short.answer([Prompt("why? " * 20)])
    with pytest.raises(ValueError, match="'magic' is not one of none, rag, memory"):
        reasoner.answer([Prompt("Q", mode="magic")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the memory"):
        reasoner.answer([Prompt("Q", mode="memory")])


def test_sampling_settings_of_the_paper_run(world):
    config, encoder, _, memory = world
    paper = {"temperature": 0.1, "top_p": 0.001, "repetition_penalty": 1.05}
    reasoner = Reasoner(
        config.model_copy(update={"reasoner": config.reasoner.model_copy(update=paper)}), backbone=encoder.backbone
    )
    question = Prompt("What?", image(5), "memory", memory=memory)
    assert reasoner.answer([question]) == reasoner.answer([question])  # top_p 0.001 leaves one token to draw


def with_settings(reasoner, config, encoder, **fields) -> Reasoner:
    settings = config.reasoner.model_copy(update=fields)
    return Reasoner(
        config.model_copy(update={"reasoner": settings}), backbone=encoder.backbone, adapter=encoder.adapter
    )


def stock_answer(reasoner, prompt, **options) -> str:
    """The answer of stock `generate` to token ids and pixels, without memory."""
    sequencer, model = reasoner.backbone.sequencer, reasoner.backbone.model
    batch = sequencer.batch([reasoner.sequence(prompt)], padding="left")
    images = {} if batch.grids is None else {"pixel_values": batch.pixel_values, "image_grid_thw": batch.grids}
    tokens = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        mm_token_type_ids=batch.token_types,
        max_new_tokens=8,
        eos_token_id=sequencer.turn_end_id,
        pad_token_id=sequencer.pad_id,
        **images,
        **options,
    )
    return sequencer.tokenizer.decode(tokens[0, batch.input_ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("penalty", [1.05, 1.3, 2.0])
def test_the_repetition_penalty_is_that_of_stock_generate(world, penalty):
    """Alone and in a batch with padding, text-only and with an image."""
    config, encoder, plain, _ = world
    reasoner = with_settings(plain, config, encoder, repetition_penalty=penalty)
    prompts = [Prompt("abc abc"), Prompt("What is this? " * 5), Prompt("And this?", image(5)), Prompt("z")]
    stock = [stock_answer(plain, p, repetition_penalty=penalty, do_sample=False) for p in prompts]
    assert [a.text for a in reasoner.answer(prompts)] == stock
    assert [reasoner.answer([p])[0].text for p in prompts] == stock


def test_a_penalty_changes_answers_because_of_the_prompt_alone(world):
    """One new token: nothing was decoded before it, so only the prompt's ids can have changed it."""
    config, encoder, plain, _ = world
    first = plain.answer([Prompt("Question", max_new_tokens=1)])[0].text
    reasoner = with_settings(plain, config, encoder, repetition_penalty=50.0)
    asked = Prompt(f"Question {first}", max_new_tokens=1)
    assert reasoner.answer([asked])[0].text == stock_answer(plain, asked, repetition_penalty=50.0, do_sample=False)[:1]


def test_no_penalty_is_greedy_decoding_of_stock_generate(world):
    _, _, reasoner, _ = world
    prompts = [Prompt("abc abc"), Prompt("And this?", image(5))]
    assert [a.text for a in reasoner.answer(prompts)] == [stock_answer(reasoner, p, do_sample=False) for p in prompts]


@pytest.mark.parametrize("foreign", [None, 65, [65, 66], [], 10**6])
def test_the_end_of_our_turn_ends_an_answer_whatever_the_checkpoint_names(world, foreign):
    """A model that always ends its turn at once, with another's stop ids."""
    _, _, reasoner, _ = world
    model, end = reasoner.backbone.model, reasoner.backbone.sequencer.turn_end_id
    kept, model.generation_config.eos_token_id = model.generation_config.eos_token_id, foreign
    handle = model.lm_head.register_forward_hook(lambda m, i, out: torch.eye(out.shape[-1])[end].expand_as(out))
    try:
        (answer,) = reasoner.answer([Prompt("Question")])
    finally:
        handle.remove()
        model.generation_config.eos_token_id = kept
    assert (answer.text, answer.completion_tokens, answer.finish_reason) == ("", 1, "stop")


def test_logits_that_are_not_finite_fail_their_own_question_alone(world):
    _, _, reasoner, memory = world
    prompts = questions(memory)
    broken = memory[:2].clone()
    broken[1, 3, 5] = float("nan")
    mixed = [*prompts[:2], Prompt("What?", image(3), "memory", memory=broken), *prompts[2:]]
    pieces: list[int] = []
    outcomes = reasoner.answer_each(mixed, lambda i, _: pieces.append(i))
    assert isinstance(outcomes[2], NotFinite)
    assert "the reasoner's numbers are NaN or infinite in float32" in str(outcomes[2])
    assert [o for n, o in enumerate(outcomes) if n != 2] == reasoner.answer(prompts)
    assert 2 not in pieces
    with pytest.raises(NotFinite, match="no precision is wider") as raised:
        reasoner.answer(mixed)
    assert raised.value.positions == [2]
    (alone,) = reasoner.answer_each([mixed[2]])
    assert isinstance(alone, NotFinite)


def test_logits_that_are_not_finite_are_noticed_when_sampling_too(world):
    config, encoder, plain, memory = world
    reasoner = with_settings(plain, config, encoder, temperature=0.1, top_p=0.001, repetition_penalty=1.05)
    first, second = reasoner.answer_each([Prompt("Q", None, "memory", memory=memory[:1] * torch.nan), Prompt("Q")])
    assert isinstance(first, NotFinite)
    assert second == reasoner.answer([Prompt("Q")])[0]


def test_batch_invariant_answers_each_question_as_alone(world):
    config, encoder, plain, memory = world
    reasoner = with_settings(plain, config, encoder, batch_invariant=True)
    prompts, pieces = questions(memory), list[tuple[int, str]]()
    answers = reasoner.answer(prompts, lambda i, text: pieces.append((i, text)))
    assert answers == [plain.answer([p])[0] for p in prompts]
    assert ["".join(t for j, t in pieces if j == i) for i in range(len(prompts))] == [a.text for a in answers]
    batches = []
    handle = encoder.backbone.model.lm_head.register_forward_hook(lambda m, inputs, out: batches.append(len(out)))
    reasoner.answer_each(prompts)
    handle.remove()
    assert set(batches) == {1}
