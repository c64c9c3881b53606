"""Text to tokens and back, for tokenizers that put a space before text and for those that do not."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from comem_ray.model.random_tokenizers import byte_tokenizer, spaced_tokenizer
from comem_ray.model.text_tokens import TextTokens
from comem_ray.prompts import ControlText, PlainText

TOKENIZERS = {
    "bytes": byte_tokenizer,
    "a space first": lambda: spaced_tokenizer(["<image>"]),
    "a space always": lambda: spaced_tokenizer(["<image>"], legacy=True),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


def test_parts_without_control_words_are_tokenised_as_their_text_is(tokenizer: PreTrainedTokenizerFast) -> None:
    parts = [ControlText("USER: "), PlainText("to a tea"), ControlText(" ASSISTANT:")]
    whole = tokenizer("USER: to a tea ASSISTANT:", add_special_tokens=False)["input_ids"]
    assert TextTokens(tokenizer).run(parts, first=True) == whole


@pytest.mark.parametrize("legacy", [False, True])
def test_spaces_after_a_control_token_are_those_of_stock_code(legacy: bool) -> None:
    tokenizer = spaced_tokenizer(["<image>"], legacy=legacy)
    text = "to <image>\na tea</s>USER: a"
    parts = [PlainText("to "), ControlText("<image>\n"), PlainText("a tea"), ControlText("</s>USER: "), PlainText("a")]
    assert TextTokens(tokenizer).run(parts, first=True) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_what_follows_text_gets_no_space(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = TextTokens(tokenizer)
    prompt = tokens.run([ControlText("A:")], first=True)
    answer = tokens.run([ControlText(" "), PlainText("to a")], first=False, continues=True)
    assert prompt + answer == tokenizer("A: to a", add_special_tokens=False)["input_ids"]


def test_spaces_survive_decoding_piece_by_piece(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens, text = TextTokens(tokenizer), " to a tea, twice"
    ids = tokens.run([PlainText(text)], first=False, continues=True)
    assert "".join(tokens.decode([i]) for i in ids) == text
    assert tokens.decode([*ids, tokenizer.eos_token_id]) == text


def test_a_vocabulary_that_makes_control_tokens_of_text_is_kept_from_it() -> None:
    """Llama 2's vocabulary holds <s> and </s> among its pieces, and merges may lead there."""
    tokenizer = spaced_tokenizer(["<image>"])
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = backend["model"]["vocab"]
    vocab |= {"<s": len(vocab) + 10}
    backend["model"]["merges"] += [["<", "s"], ["<s", ">"]]
    tokenizer = type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), eos_token="</s>", unk_token="<unk>"
    )
    tokens, start = TextTokens(tokenizer), tokenizer.convert_tokens_to_ids("<s>")
    for text in ("<s>", "a<s>b<s>", "x <s></s> y"):
        ids = tokens.run([PlainText(text)], first=True)
        assert start not in ids
        assert tokens.decode(ids).removeprefix(" ") == text
