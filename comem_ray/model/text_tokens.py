"""Text to tokens and back: text of others never becomes a control token, and spaces are those that were written.

Byte-level tokenizers (Qwen, Llama 3, SmolLM) take every part of a prompt on its own. Those of Llama 2 and Mistral put a
space before text, and drop one when they decode. For these, the parts between two control tokens are joined before
they are tokenised, as the stock processors do, and a space is put only where stock code puts one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from comem_ray.prompts import ControlText, PlainText


class TextTokens:
    """The two directions of a checkpoint's tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        bare, self._prefix = _without_prefix(backend)
        self._first = Tokenizer.from_str(json.dumps(backend | {"added_tokens": []}))
        self._bare = Tokenizer.from_str(json.dumps(bare | {"added_tokens": []}))
        self._decoder: Any = Tokenizer.from_str(json.dumps(bare)) if self._prefix else tokenizer
        added = tokenizer.added_tokens_encoder
        self._control_ids = set(added.values()) - {tokenizer.unk_token_id}
        self._control = re.compile("(" + "|".join(re.escape(t) for t in sorted(added, key=len, reverse=True)) + ")")

    def plain(self, text: str) -> list[int]:
        """Ids of the text of an item or a question; no control token is among them."""
        return self._encode(self._first, text)

    def control(self, text: str) -> list[int]:
        """Ids of our own text, control tokens included."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def run(self, parts: Sequence[ControlText | PlainText], first: bool, continues: bool = False) -> list[int]:
        """Ids of neighbouring parts. `first`: a prompt begins with them. `continues`: they follow text, not a token."""
        if not self._prefix:
            return [i for p in parts for i in (self.plain if isinstance(p, PlainText) else self.control)(p.text)]
        pieces: list[tuple[bool, str]] = []  # (is a control token, text)
        for part in parts:
            plain = isinstance(part, PlainText)
            for piece in [part.text] if plain else self._control.split(part.text):
                is_token = not plain and self._control.fullmatch(piece) is not None
                if pieces and not is_token and not pieces[-1][0]:
                    pieces[-1] = (False, pieces[-1][1] + piece)
                elif piece:
                    pieces.append((is_token, piece))
        ids: list[int] = []
        for is_token, piece in pieces:
            if is_token:
                ids += self.control(piece)
            else:
                prefixed = not continues and (first or self._prefix == "always")
                ids += self._encode(self._first if prefixed else self._bare, piece)
                first = False
            continues = False
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens that follow others: a space at their beginning is kept."""
        text: str = self._decoder.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def _encode(self, backend: Tokenizer, text: str) -> list[int]:
        ids = backend.encode(text, add_special_tokens=False).ids
        if self._control_ids.isdisjoint(ids):
            return ids
        # The vocabulary itself makes a control token of the text: cut each such word after its first character.
        cuts = [0, *(match.start() + 1 for match in self._control.finditer(text)), len(text)]
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        first = backend.encode(pieces[0], add_special_tokens=False).ids
        return first + [i for p in pieces[1:] for i in self._bare.encode(p, add_special_tokens=False).ids]


def _without_prefix(backend: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The tokenizer without the space before text, and where that is put: None, "first" (of a prompt) or "always"."""
    bare: dict[str, Any] = json.loads(json.dumps(backend))
    where: str | None = None
    normalizers = _steps(bare.get("normalizer"), "normalizers")
    if any(step["type"] == "Prepend" for step in normalizers):
        where = "always"
        kept = [step for step in normalizers if step["type"] != "Prepend"]
        bare["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for step in _steps(bare.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            where, step["prepend_scheme"] = step.get("prepend_scheme", "always"), "never"
    if where is not None:
        decoders = _steps(bare.get("decoder"), "decoders")
        for step in decoders:
            if step["type"] == "Metaspace":
                step["prepend_scheme"] = "never"
        kept = [step for step in decoders if step["type"] != "Strip"]
        bare["decoder"] = {"type": "Sequence", "decoders": kept} if kept else None
    return bare, where


def _steps(setting: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if setting is None:
        return []
    return setting[name] if setting["type"] == "Sequence" else [setting]
