"""Tokenizers for backbones of random weights: one token per byte (or letter), and a family's control tokens."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

CONTROL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
"""Of Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""


def byte_tokenizer(
    control: Sequence[str] = CONTROL_TOKENS, end: str = "<|im_end|>", pad: str = "<|endoftext|>"
) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 byte tokens (no merges) and the control tokens, in the layout of Qwen's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    words = pre_tokenizers.Split(Regex(r"\s+|\S+"), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    backend.decoder = decoders.ByteLevel()
    return _with_control(backend, control, end, pad)


def spaced_tokenizer(control: Sequence[str], end: str = "</s>", legacy: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer in the layout of Llama 2 and Mistral: letters, bytes for the rest, and a space put before text.

    The space comes before a prompt, or (`legacy`) before every piece of text between control tokens.
    """
    letters = ["▁", *(chr(i) for i in range(33, 127)), "▁t", "▁a"]  # two words, to tell "▁t" from "▁", "t"
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters]
    vocab = {name: i for i, name in enumerate(names)}
    backend = Tokenizer(BPE(vocab=vocab, merges=[("▁", "t"), ("▁", "a")], byte_fallback=True, unk_token="<unk>"))
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return _with_control(backend, ["<s>", "</s>", *control], end, "</s>")


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a token that is there."""
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int)
    return number


def _with_control(backend: Tokenizer, control: Sequence[str], end: str, pad: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token=pad, model_max_length=1 << 30
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(control)})
    return tokenizer
