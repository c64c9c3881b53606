"""The text of an answer while its tokens come: whole characters only, and nothing that may become a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class AnswerText:
    """Text of tokens that are added one by one, up to the first of the stop strings.

    The first stop string is the one that is complete first, so that it does not depend on where tokens begin.
    `tokenizer` has `decode(ids, skip_special_tokens)` that works on bytes and keeps spaces (a byte-level tokenizer, or
    `TextTokens`): the text of tokens is that of their joined bytes. `reply` is what the model writes between the prompt
    and the answer (a space, in some chat formats); it is left out.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), reply: str = ""):
        self.tokenizer, self.stop, self._reply = tokenizer, stop, reply
        self.stopped = False  # a stop string was met; `text` is what comes before it
        self.text = ""  # safe to pass on: it only grows
        self._whole = ""  # with what may become a stop string
        self._pending: list[int] = []  # tokens since the last complete character

    def add(self, token: int) -> None:
        """One more token. Control tokens have no text."""
        self._pending.append(token)
        text = self._decoded()
        # A character may take several tokens; an incomplete one decodes as U+FFFD.
        if not text.endswith("\ufffd"):
            self._append(text)

    def end(self) -> None:
        """No token follows: what was held back is text."""
        self._append(self._decoded())
        if not self.stopped:
            self.text = self._whole

    def _decoded(self) -> str:
        return self.tokenizer.decode(self._pending, skip_special_tokens=True)

    def _append(self, text: str) -> None:
        self._pending = []
        if text:
            text, self._reply = text.removeprefix(self._reply), ""
        before, self._whole = len(self._whole), self._whole + text
        matches = []
        for stop in self.stop:
            start = self._whole.find(stop, max(0, before - len(stop) + 1))
            if start >= 0:
                matches.append((start + len(stop), start))
        if matches:
            self.stopped, self.text = True, self._whole[: min(matches)[1]]
        else:
            self.text = self._whole[: len(self._whole) - self._held_back()]

    def _held_back(self) -> int:
        """Characters at the end that begin a stop string: the most of any."""
        longest = max((len(stop) for stop in self.stop), default=1)
        for count in range(min(longest - 1, len(self._whole)), 0, -1):
            if any(stop.startswith(self._whole[-count:]) for stop in self.stop):
                return count
        return 0
