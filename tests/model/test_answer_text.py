"""Text that grows token by token: whole characters, and stop strings wherever tokens begin."""

import random
from itertools import pairwise

import pytest

from comem_ray.model.answer_text import AnswerText
from comem_ray.model.random_tokenizers import byte_tokenizer

TOKENIZER = byte_tokenizer()
START = TOKENIZER.convert_tokens_to_ids("<|im_start|>")


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text).input_ids


def grow(tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[AnswerText, list[str]]:
    """The text at the end, and after each token."""
    text, texts = AnswerText(TOKENIZER, stop), []
    for token in tokens:
        text.add(token)
        texts.append(text.text)
        if text.stopped:
            return text, texts
    text.end()
    return text, [*texts, text.text]


def test_a_character_of_several_tokens_is_shown_when_it_is_complete():
    _, texts = grow(ids_of("é€!"))
    assert texts == ["", "é", "é", "é", "é€", "é€!", "é€!"]


def test_a_character_that_stays_incomplete_is_shown_at_the_end():
    _, texts = grow(ids_of("a€")[:-1])
    assert texts == ["a", "a", "a", "a\ufffd"]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_tokens_add_up_to_the_text_of_all(seed):
    """Random bytes, which are mostly no valid text, with control tokens between them."""
    choose = random.Random(seed)
    tokens = [*ids_of("héllo €"), *(choose.choice([*range(256), START, *ids_of("€")]) for _ in range(30))]
    text, texts = grow(tokens)
    assert text.text == TOKENIZER.decode(tokens, skip_special_tokens=True)
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


@pytest.mark.parametrize(
    ("whole", "stop", "want"),
    [
        ("one STOP two", ("STOP",), "one "),
        ("one STO two", ("STOP",), "one STO two"),
        ("one STOSTOP", ("STOP",), "one STO"),
        ("ab\n\ncd", ("\n\n",), "ab"),
        ("naïve €5", ("€",), "naïve "),
        ("abc", ("bc", "abcd"), "a"),
        ("abcd", ("cd", "abcde", "d"), "ab"),
        ("STOP", ("STOP",), ""),
        ("xaab", ("aab", "ab"), "x"),
        ("ends with ST", ("STOP",), "ends with ST"),
    ],
)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(whole, stop, want):
    text, texts = grow(ids_of(whole), stop)
    assert text.text == want
    assert text.stopped == (want != whole)
    assert all(want.startswith(each) for each in texts)  # nothing of a stop string was ever shown


@pytest.mark.parametrize(
    ("pieces", "text"),
    [([" ", "Sofia", " is"], "Sofia is"), ([" Sofia", " is"], "Sofia is"), (["Sofia"], "Sofia"), ([" ", " x"], " x")],
)
def test_the_space_of_a_reply_is_not_part_of_the_answer(pieces, text):
    answer = AnswerText(Pieces(pieces), reply=" ")
    for n in range(len(pieces)):
        answer.add(n)
    answer.end()
    assert answer.text == text


class Pieces:
    """A tokenizer whose token n is the n-th piece of a text."""

    def __init__(self, pieces: list[str]):
        self.pieces = pieces

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize("seed", range(50))
def test_where_tokens_begin_does_not_matter(seed):
    choose = random.Random(seed)
    whole = "".join(choose.choices("ab#", k=20))
    stop = tuple("".join(choose.choices("ab#", k=choose.randint(1, 4))) for _ in range(2))
    results = set()
    for _ in range(5):
        cuts = sorted(choose.sample(range(1, 20), 6))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, 20], strict=True)]
        text = AnswerText(Pieces(pieces), stop)
        for n in range(len(pieces)):
            if not text.stopped:
                text.add(n)
        if not text.stopped:
            text.end()
        results.add((text.text, text.stopped))
    first = min(((whole.find(s) + len(s), whole.find(s)) for s in stop if s in whole), default=None)
    assert results == {(whole, False) if first is None else (whole[: first[1]], True)}
