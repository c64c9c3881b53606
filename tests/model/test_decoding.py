"""The processors against those of transformers, and the ids that end an answer."""

from types import SimpleNamespace

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from comem_ray.model.decoding import Decoder, FiniteRows, PromptRepetitionPenalty, RowLimits, stop_ids
from comem_ray.model.random_backbone import byte_tokenizer

TOKENIZER = byte_tokenizer()
END, START, PAD = TOKENIZER.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "<|endoftext|>"])


@pytest.mark.parametrize("penalty", [1.05, 1.5, 0.8])
def test_the_penalty_is_that_of_transformers_with_the_prompts_ids(penalty):
    torch.manual_seed(0)
    prompt, stock = [3, 7, 7, 11], RepetitionPenaltyLogitsProcessor(penalty)
    ours, decoded = PromptRepetitionPenalty(penalty, [prompt]), torch.empty(1, 0, dtype=torch.long)
    for token in (5, 3, 19):
        scores = torch.randn(1, 24)
        assert torch.equal(
            ours(decoded, scores), stock(torch.cat([torch.tensor([prompt]), decoded], 1), scores.clone())
        )
        decoded = torch.cat([decoded, torch.tensor([[token]])], 1)


def test_each_row_is_penalised_for_its_own_prompt_and_not_for_padding():
    scores = torch.ones(2, 6)
    penalised = PromptRepetitionPenalty(2.0, [[1, 2], [4]])(torch.empty(2, 0, dtype=torch.long), scores)
    assert penalised.tolist() == [[1, 0.5, 0.5, 1, 1, 1], [1, 1, 1, 1, 0.5, 1]]
    assert scores.eq(1).all()


def test_an_empty_prompt_is_not_penalised():
    assert PromptRepetitionPenalty(2.0, [[]])(torch.empty(1, 0, dtype=torch.long), torch.ones(1, 3)).eq(1).all()


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


def test_a_row_that_is_not_finite_ends_alone():
    finite = FiniteRows(3, torch.device("cpu"))
    limits = RowLimits([9, 9, 1], finite)
    scores = torch.zeros(3, 4)
    scores[1, 2] = float("nan")
    out = finite(torch.empty(3, 0, dtype=torch.long), scores)
    assert out.isfinite().all()
    assert finite.failed.tolist() == [False, True, False]
    assert limits(torch.zeros(3, 1, dtype=torch.long), scores).tolist() == [False, True, True]
    finite(torch.empty(3, 1, dtype=torch.long), torch.zeros(3, 4))
    assert finite.failed.tolist() == [False, True, False]  # it does not recover


def test_the_decoder_passes_on_whole_characters_and_nothing_of_a_failed_row():
    pieces: list[tuple[int, str]] = []
    finite = FiniteRows(2, torch.device("cpu"))
    decoder = Decoder(TOKENIZER, [END], [9, 9], finite, lambda i, text: pieces.append((i, text)))
    finite.failed[1] = True
    for token in [*TOKENIZER("é!").input_ids, END]:
        decoder.put(torch.tensor([token, token]))
    assert pieces == [(0, "é"), (0, "!")]
    assert decoder.ids[1] == []
    assert decoder.reason(0) == "stop"
