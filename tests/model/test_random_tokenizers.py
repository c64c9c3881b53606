"""Tokenizers of bytes and of letters give every text back."""

import pytest

from comem_ray.model.random_tokenizers import CONTROL_TOKENS, byte_tokenizer, spaced_tokenizer, token_id


@pytest.mark.parametrize(
    "make", [byte_tokenizer, lambda: spaced_tokenizer([]), lambda: spaced_tokenizer([], legacy=True)]
)
def test_any_text_comes_back(make):
    tokenizer = make()
    for text in ("Sofia, София 索非亚\n", "a  b", "<s", "it is 5.5 €"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_control_tokens_are_one_token_each():
    tokenizer = spaced_tokenizer(["<image>"])
    assert tokenizer("<s><image></s>", add_special_tokens=False)["input_ids"] == [
        token_id(tokenizer, name) for name in ("<s>", "<image>", "</s>")
    ]
    assert len(byte_tokenizer()) == 256 + len(CONTROL_TOKENS)
