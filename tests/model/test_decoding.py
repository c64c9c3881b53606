"""How tokens are chosen, against the processors of transformers, and the ids that end an answer."""

from types import SimpleNamespace

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from comem_ray.model.decoding import Draw, PromptRepetitionPenalty, Sampling, choose, stop_ids
from comem_ray.model.random_tokenizers import byte_tokenizer

TOKENIZER = byte_tokenizer()
END, START, PAD = TOKENIZER.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "<|endoftext|>"])


CPU = torch.device("cpu")


@pytest.mark.parametrize("penalty", [1.05, 1.5, 0.8])
def test_the_penalty_is_that_of_transformers_with_the_prompts_ids(penalty):
    torch.manual_seed(0)
    prompt, stock = [3, 7, 7, 11], RepetitionPenaltyLogitsProcessor(penalty)
    ours, ids = PromptRepetitionPenalty(penalty, [prompt], 24, CPU), torch.tensor([prompt])
    for token in (5, 3, 19):
        scores = torch.randn(1, 24)
        assert torch.equal(ours(scores), stock(ids, scores.clone()))
        ours.add(torch.tensor([token]))
        ids = torch.cat([ids, torch.tensor([[token]])], 1)


def test_each_row_is_penalised_for_its_own_prompt_and_not_for_padding():
    scores = torch.ones(2, 6)
    penalised = PromptRepetitionPenalty(2.0, [[1, 2], [4]], 6, CPU)(scores)
    assert penalised.tolist() == [[1, 0.5, 0.5, 1, 1, 1], [1, 1, 1, 1, 0.5, 1]]
    assert scores.eq(1).all()


def test_an_empty_prompt_is_not_penalised():
    assert PromptRepetitionPenalty(2.0, [[]], 3, CPU)(torch.ones(1, 3)).eq(1).all()


@pytest.mark.parametrize(
    ("named", "ids"),
    [
        (None, {END}),
        (END, {END}),
        (PAD, {END, PAD}),
        ([PAD, END], {END, PAD}),
        ([], {END}),
        (65, {END}),  # ordinary text here
        ([65, 2, PAD], {END, PAD}),
        (10**9, {END}),
        (-1, {END}),
        ("<|im_end|>", {END}),
        ([None, "x", PAD], {END, PAD}),
    ],
)
def test_the_end_of_our_own_turn_is_always_a_stop(named, ids):
    assert set(stop_ids(SimpleNamespace(eos_token_id=named), TOKENIZER, END)) == ids


def test_a_row_that_is_not_finite_is_told_apart_from_the_others():
    logits = torch.zeros(3, 4)
    logits[0, 3], logits[1, 2], logits[2, 1] = 1, torch.nan, 5
    penalty = PromptRepetitionPenalty(1.0, [[], [], []], 4, logits.device)
    draws = [Draw(Sampling(), logits.device), Draw(Sampling(1.0), logits.device), Draw(Sampling(0.01), logits.device)]
    tokens, finite = choose(logits, penalty, draws)
    assert finite == [True, False, True]
    assert (tokens[0], tokens[2]) == (3, 1)


def test_draws_follow_the_probabilities_of_temperature_and_top_p():
    logits = torch.tensor([[2.0, 1.0, 0.0, -3.0]])
    draw = Draw(Sampling(0.5, 0.9, seed=0), logits.device)
    counts = torch.bincount(torch.tensor([int(draw(logits)) for _ in range(4000)]), minlength=4)
    wanted = torch.tensor([4.0, 2.0]).softmax(0)  # divided by the temperature; the rest is beyond top_p
    torch.testing.assert_close(counts / 4000, torch.tensor([*wanted, 0, 0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-9, 1e-320])
def test_a_temperature_near_zero_is_greedy(temperature):
    logits = torch.tensor([[-1e4, 2.0, 1.0, 2e4]])
    assert int(Draw(Sampling(temperature, 0.5, seed=1), logits.device)(logits)) == 3


@pytest.mark.parametrize("seed", [0, -1, 2**64 - 1, -(2**63)])
def test_a_seed_repeats_its_draws(seed):
    logits = torch.zeros(1, 50)
    first, second = (Draw(Sampling(1.0, seed=seed), logits.device) for _ in range(2))
    assert [int(first(logits)) for _ in range(9)] == [int(second(logits)) for _ in range(9)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, want 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 0}, "top_p is 0, want more than 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"seed": 2**64}, "want a number of 64 bits"),
        ({"stop": ("a", "")}, "a stop string is empty"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**fields)
