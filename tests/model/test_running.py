"""Answers that run together: as each alone, whoever joins, ends or is dropped, and as stock `generate` makes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.stock_generate import stock_tokens
from support.tiny import FAMILIES, image

from comem_ray.finite import NotFinite
from comem_ray.model.decoding import Sampling
from comem_ray.model.reasoner import Completion, Decoding, Prompt, PromptTooLong, Reasoner
from comem_ray.model.running import RunningAnswer
from comem_ray.prompts import Turn

ITEMS = [(f"Item {i}: " + "words " * i, image(i, 50 + 9 * i, 44)) for i in range(3)]
MEMORY = torch.randn(4, 8, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", params=FAMILIES)
def reasoner(request: pytest.FixtureRequest, make_config: Any) -> Reasoner:
    return Reasoner(make_config(request.param))


def with_settings(reasoner: Reasoner, **fields: Any) -> Reasoner:
    """The same weights under other settings."""
    copy = Reasoner.__new__(Reasoner)
    copy.__dict__ |= reasoner.__dict__ | {"config": reasoner.config.model_copy(update=fields)}
    return copy


PROMPTS = [
    Prompt("What is this?", max_new_tokens=12),
    Prompt("z", max_new_tokens=1),
    Prompt("And in the image, what is that?", image(20), max_new_tokens=9),
    Prompt("The memory?", image(21, 100, 40), "memory", memory=MEMORY[:3], max_new_tokens=14),
    Prompt("No image " * 9, None, "memory", memory=MEMORY[3:], max_new_tokens=5),
    Prompt("In the prompt?", image(22), "rag", items=ITEMS, max_new_tokens=7),
    Prompt("Two of them", [image(1), image(2, 90, 50)], max_new_tokens=10),
    Prompt("And now?", system="Be short.", history=[Turn("user", "Hi", [image(4)]), Turn("assistant", "Ho")]),
]


def run(decoding: Decoding) -> None:
    while decoding.running:
        decoding.step()


def tokens_together(reasoner: Reasoner, prompts: list[Prompt]) -> list[list[int]]:
    decoding = reasoner.decoding()
    answers = decoding.join(prompts)
    run(decoding)
    assert all(isinstance(answer, RunningAnswer) and answer.outcome is not None for answer in answers)
    return [answer.tokens for answer in answers]  # type: ignore[union-attr]


@contextmanager
def each_logits(reasoner: Reasoner, change: Any) -> Iterator[None]:
    """`change(call, logits (B, 1, V))` may replace the logits of each forward pass, in inference mode."""
    calls = iter(range(10**6))
    hook = reasoner.backbone.model.lm_head.register_forward_hook(lambda m, inputs, out: change(next(calls), out))
    try:
        yield
    finally:
        hook.remove()


def script(reasoner: Reasoner, *rows: list[int]) -> Any:
    """A change of logits that makes row i answer with the tokens rows[i] (all rows stay until their end)."""
    width = reasoner.backbone.model.lm_head.out_features

    def change(call: int, logits: torch.Tensor) -> torch.Tensor:
        running = [row for row in rows if call < len(row)]
        return torch.eye(width)[[row[call] for row in running]][:, None] * 30

    return change


@pytest.mark.parametrize("penalty", [1.0, 1.05, 1.5])
def test_alone_and_in_padded_batches_the_tokens_are_those_of_stock_generate(reasoner: Reasoner, penalty: float) -> None:
    reasoner = with_settings(reasoner, repetition_penalty=penalty)
    stock = [stock_tokens(reasoner, prompt, penalty) for prompt in PROMPTS]
    assert [tokens_together(reasoner, [prompt])[0] for prompt in PROMPTS] == stock
    assert tokens_together(reasoner, PROMPTS) == stock
    assert tokens_together(reasoner, PROMPTS[::-1]) == stock[::-1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.3}, {"batch_invariant": True}])
def test_no_answer_depends_on_who_joins_ends_or_is_dropped(
    reasoner: Reasoner, seed: int, settings: dict[str, Any]
) -> None:
    reasoner, choose = with_settings(reasoner, **settings), random.Random(seed)
    prompts = [replace(p, sampling=Sampling(0.9, 0.8, seed=7)) if choose.random() < 0.3 else p for p in PROMPTS]
    alone = [tokens_together(reasoner, [prompt])[0] for prompt in prompts]
    waiting, decoding = choose.sample(range(len(prompts)), len(prompts)), reasoner.decoding()
    answers: dict[int, RunningAnswer] = {}
    dropped: dict[int, int] = {}  # and how many tokens they had
    while waiting or decoding.running:
        if waiting and choose.random() < 0.5:
            joining = [waiting.pop() for _ in range(choose.randint(1, min(3, len(waiting))))]
            answers |= zip(joining, decoding.join([prompts[i] for i in joining]), strict=True)  # type: ignore[arg-type]
        if decoding.running and choose.random() < 0.2:
            victim = choose.choice([i for i, answer in answers.items() if answer in decoding.running])
            decoding.drop([answers[victim]])
            dropped[victim] = answers[victim].completion_tokens
        lengths = [a.prompt_columns + a.completion_tokens - 1 for a in decoding.running]
        padded = len(lengths) * max(lengths, default=0)
        assert decoding.cells == (sum(lengths) if reasoner.config.batch_invariant else padded)
        assert decoding.cells <= decoding.cells_with([])
        if decoding.running:
            decoding.step()
    for i, answer in answers.items():
        assert answer.tokens == alone[i][: dropped.get(i)]
        assert (answer.outcome is None) == (i in dropped)


def test_logits_of_every_step_are_those_of_a_full_forward(reasoner: Reasoner) -> None:
    """The second half joins two tokens later; rows leave at different times."""
    seen: list[torch.Tensor] = []
    decoding, parts = reasoner.decoding(), [PROMPTS[:4], PROMPTS[4:]]
    expected: dict[tuple[int, int], torch.Tensor] = {}

    def note(call: int, logits: torch.Tensor) -> None:
        seen.append(logits[:, -1])

    answers: list[Any] = []
    with each_logits(reasoner, note):
        for part in parts:
            answers += decoding.join(part)
            rows = answers[-len(part) :]
            expected |= {(id(a), 0): row for a, row in zip(rows, seen[-1], strict=True)}
            for _ in range(2 if part is parts[0] else 99):
                if decoding.running:
                    running = decoding.running
                    decoding.step()
                    expected |= {
                        (id(a), a.completion_tokens - 1): row for a, row in zip(running, seen[-1], strict=True)
                    }
    assert len(expected) == sum(a.completion_tokens for a in answers)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        sequence = reasoner.sequence(prompt)
        whole = replace(sequence, ids=sequence.ids + answer.tokens[:-1])
        with torch.inference_mode():
            batch, embeds = reasoner.inputs([prompt], [whole])
            hidden = reasoner.backbone.hidden_states(batch, embeds)[0, -answer.completion_tokens :]
            logits = reasoner.backbone.model.lm_head(hidden)
        for n, row in enumerate(logits):
            torch.testing.assert_close(expected[id(answer), n], row, atol=2e-4, rtol=1e-3)


def test_only_the_last_position_gets_logits_and_the_model_keeps_no_state(reasoner: Reasoner) -> None:
    reasoner.backbone.model.model.rope_deltas = None
    shapes: list[torch.Size] = []
    with each_logits(reasoner, lambda call, out: shapes.append(out.shape)):
        tokens_together(reasoner, PROMPTS[2:5])
    assert {shape[1] for shape in shapes} == {1}
    assert reasoner.backbone.model.model.rope_deltas is None


def test_dropping_and_ending_free_rows_and_columns(reasoner: Reasoner) -> None:
    decoding = reasoner.decoding()
    short, long, middle = decoding.join([PROMPTS[0], PROMPTS[5], PROMPTS[4]])
    lengths = {a: reasoner.length(p) for a, p in [(short, PROMPTS[0]), (long, PROMPTS[5]), (middle, PROMPTS[4])]}
    assert decoding.cells == 3 * lengths[long]
    assert decoding.cells_with([40, 9000]) == 5 * 9000
    decoding.drop([long])
    assert decoding.cells == 2 * max(lengths[short], lengths[middle])
    decoding.drop([long, middle])
    assert decoding.running == [short]
    assert decoding.cells == lengths[short]
    assert decoding.cells_with([]) == lengths[short] + 12
    run(decoding)
    assert (decoding.cells, decoding.cells_with([])) == (0, 0)
    decoding.drop([short])  # it has ended by itself
    assert long.outcome is None
    assert isinstance(short.outcome, Completion)


def test_an_answer_of_one_token_never_takes_a_row(reasoner: Reasoner) -> None:
    decoding = reasoner.decoding()
    (answer,) = decoding.join([PROMPTS[1]])
    assert isinstance(answer, RunningAnswer)
    assert (answer.outcome, decoding.cells) == (reasoner.answer([PROMPTS[1]])[0], 0)
    assert decoding.join([]) == []


@pytest.mark.parametrize("invariant", [False, True])
def test_a_seed_gives_the_same_answer_in_any_company(reasoner: Reasoner, invariant: bool) -> None:
    reasoner = with_settings(reasoner, batch_invariant=invariant)
    seeded = [replace(PROMPTS[0], max_new_tokens=20, sampling=Sampling(1.0, 0.95, seed)) for seed in (1, 1, 2)]
    alone = [tokens_together(reasoner, [prompt])[0] for prompt in seeded]
    assert alone[0] == alone[1] != alone[2]
    others = [replace(prompt, sampling=Sampling(1.5)) for prompt in PROMPTS[2:5]]
    assert tokens_together(reasoner, [*others, *seeded])[3:] == alone


def test_without_a_seed_torchs_global_generator_decides(reasoner: Reasoner) -> None:
    prompt = replace(PROMPTS[0], max_new_tokens=20, sampling=Sampling(1.0))
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(tokens_together(reasoner, [prompt]))
    assert answers[0] == answers[1] != answers[2]


def test_own_settings_come_before_those_of_the_configuration(reasoner: Reasoner) -> None:
    hot, prompt = with_settings(reasoner, temperature=2.0), replace(PROMPTS[0], max_new_tokens=20)
    greedy = tokens_together(reasoner, [prompt])
    assert tokens_together(hot, [replace(prompt, sampling=Sampling())]) == greedy != tokens_together(hot, [prompt])


def test_batch_invariant_is_bitwise_the_same_in_any_company(reasoner: Reasoner) -> None:
    reasoner = with_settings(reasoner, batch_invariant=True)
    logits: list[torch.Tensor] = []
    with each_logits(reasoner, lambda call, out: logits.append(out.clone())):
        tokens_together(reasoner, [PROMPTS[3]])
        alone = logits.copy()
        logits.clear()
        decoding = reasoner.decoding()
        decoding.join([PROMPTS[0]])
        decoding.step()
        logits.clear()
        (answer,) = decoding.join([PROMPTS[3]])
        together = [logits[-1]]
        while isinstance(answer, RunningAnswer) and answer.outcome is None:
            decoding.join([replace(PROMPTS[4], max_new_tokens=2)])
            number = decoding.running.index(answer)
            logits.clear()
            decoding.step()
            together.append(logits[number])
    assert len(alone) == len(together)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert all(len(out) == 1 for out in together)


def test_a_row_that_is_not_finite_ends_alone(reasoner: Reasoner) -> None:
    def spoil(call: int, logits: torch.Tensor) -> torch.Tensor:
        if call == 2:
            logits[1] = torch.inf
        return logits

    alone = [tokens_together(reasoner, [prompt])[0] for prompt in PROMPTS[2:5]]
    decoding = reasoner.decoding()
    with each_logits(reasoner, spoil):
        first, spoiled, last = decoding.join(PROMPTS[2:5])
        decoding.step()
        decoding.step()
        assert isinstance(spoiled.outcome, NotFinite)
        assert spoiled.tokens == alone[1][:2]
        assert decoding.running == [first, last]
        run(decoding)
    assert [first.tokens, last.tokens] == [alone[0], alone[2]]


def test_what_is_wrong_with_a_prompt_comes_in_its_place(reasoner: Reasoner) -> None:
    reasoner = with_settings(reasoner, max_prompt_tokens=400)
    decoding = reasoner.decoding()
    poison = Prompt("Q", None, "memory", memory=MEMORY * torch.nan)
    answer, too_long, not_finite = decoding.join([PROMPTS[0], Prompt("long " * 400), poison])
    assert isinstance(too_long, PromptTooLong)
    assert isinstance(not_finite, NotFinite)
    assert "NaN or infinite in float32" in str(not_finite)
    assert decoding.running == [answer]
    run(decoding)
    assert answer.tokens == tokens_together(reasoner, [PROMPTS[0]])[0]


@pytest.mark.parametrize("invariant", [False, True])
def test_an_error_while_joining_leaves_the_others_untouched(reasoner: Reasoner, invariant: bool) -> None:
    reasoner = with_settings(reasoner, batch_invariant=invariant, repetition_penalty=1.2)
    decoding = reasoner.decoding()
    running = decoding.join(PROMPTS[2:4])
    decoding.step()
    cells = decoding.cells
    wide = Prompt("Q", None, "memory", memory=torch.zeros(1, 8, 3))
    for wrong in (wide, Prompt("Q", mode="memory"), Prompt("Q", mode="magic")):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"memory|mode"):
            decoding.join([PROMPTS[0], wrong])
    assert (decoding.running, decoding.cells) == (running, cells)
    run(decoding)
    assert [a.tokens for a in running] == [tokens_together(reasoner, [p])[0] for p in PROMPTS[2:4]]  # type: ignore[union-attr]


def test_memory_that_ends_while_caches_are_joined_leaves_the_others_untouched(
    reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three layers fails, when the first has been joined."""
    from comem_ray.model import padded_cache

    decoding, padded, calls = reasoner.decoding(), padded_cache._padded, iter(range(100))
    running = decoding.join(PROMPTS[2:4])

    def scarce(tensors: Any, size: int, end: int) -> torch.Tensor:
        if len(tensors) == 2 and next(calls) == 3:
            raise torch.OutOfMemoryError("no memory")
        return padded(tensors, size, end)

    monkeypatch.setattr(padded_cache, "_padded", scarce)
    decoding.step()
    with pytest.raises(torch.OutOfMemoryError):
        decoding.join([PROMPTS[5]])
    assert decoding.running == running
    decoding.step()
    (late,) = decoding.join([PROMPTS[5]])
    run(decoding)
    wanted = [tokens_together(reasoner, [PROMPTS[i]])[0] for i in (2, 3, 5)]
    assert [a.tokens for a in (*running, late)] == wanted  # type: ignore[union-attr]


def test_after_an_error_in_a_step_a_decoding_refuses_to_go_on(reasoner: Reasoner) -> None:
    def fail(call: int, logits: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no memory")

    decoding = reasoner.decoding()
    answers = decoding.join(PROMPTS[2:4])
    with each_logits(reasoner, fail), pytest.raises(torch.OutOfMemoryError):
        decoding.step()
    for use in (decoding.step, lambda: decoding.drop(answers), lambda: decoding.join(PROMPTS[:1])):  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="failed in the middle of a step"):
            use()
    assert decoding.running == answers  # to begin again


def bytes_of(reasoner: Reasoner, text: str) -> list[int]:
    return reasoner.backbone.sequencer.plain_ids(text)


def test_stop_strings_and_stop_ids_end_an_answer(reasoner: Reasoner) -> None:
    end = reasoner.backbone.sequencer.turn_end_id
    rows = [bytes_of(reasoner, "one é## two"), [*bytes_of(reasoner, "one #"), end], bytes_of(reasoner, "one# and so")]
    prompts = [replace(PROMPTS[0], max_new_tokens=11, sampling=Sampling(stop=("##", "é!")))] * 3
    pieces: list[tuple[int, str]] = []
    ends = [8, 6, 11]
    with each_logits(reasoner, script(reasoner, *(row[:n] for row, n in zip(rows, ends, strict=True)))):
        answers = reasoner.answer(prompts, lambda i, text: pieces.append((i, text)))
    assert [(a.text, a.completion_tokens, a.finish_reason) for a in answers] == [
        ("one é", 8, "stop"),
        ("one #", 6, "stop"),
        ("one# and so", 11, "length"),
    ]
    for i, answer in enumerate(answers):
        assert "".join(text for j, text in pieces if i == j) == answer.text


def test_streamed_text_never_shows_part_of_a_character_or_of_a_stop_string(reasoner: Reasoner) -> None:
    tokens = bytes_of(reasoner, "a€b<s")
    decoding = reasoner.decoding()
    with each_logits(reasoner, script(reasoner, tokens)):
        (answer,) = decoding.join(
            [replace(PROMPTS[0], max_new_tokens=len(tokens), sampling=Sampling(stop=("<stop>",)))]
        )
        assert isinstance(answer, RunningAnswer)
        texts = [answer.text]
        while decoding.running:
            decoding.step()
            texts.append(answer.text)
    assert texts == ["a", "a", "a", "a€", "a€b", "a€b", "a€b<s"]
