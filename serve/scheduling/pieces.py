"""The text of an answer as it grows, each piece passed on once. Knows nothing of models or of HTTP."""

from __future__ import annotations

from collections.abc import Callable


class Pieces:
    """Passes on the pieces of one answer.

    An answer that is begun again, for its batch failed, goes on where it had stopped. It may come out otherwise; what
    was passed on cannot be taken back, so nothing more is passed on, and `differs` says so.
    """

    def __init__(self, send: Callable[[str], None]):
        self._send, self._sent, self._text = send, "", ""

    def begin(self) -> None:
        """The next piece is the first one of the answer."""
        self._text = ""

    def __call__(self, piece: str) -> None:
        self._text += piece
        if self._text.startswith(self._sent) and len(self._text) > len(self._sent):
            self._send(self._text[len(self._sent) :])
            self._sent = self._text

    @property
    def differs(self) -> bool:
        """Whether the answer, as it came out last, is another text than what was passed on."""
        return self._text != self._sent
