"""The text of an answer as it grows, each piece passed on once. Knows nothing of models or of HTTP."""

from __future__ import annotations

from collections.abc import Callable


class Pieces:
    """Passes on what an answer's text has grown by.

    An answer that is begun again, for its batch failed, goes on where it had stopped. It may come out otherwise; what
    was passed on cannot be taken back, so nothing more is passed on, and `differs` says so.
    """

    def __init__(self, send: Callable[[str], None]):
        self._send, self._sent, self._text = send, "", ""

    def update(self, text: str) -> None:
        """The answer's whole text is `text` now."""
        self._text = text
        if text.startswith(self._sent) and len(text) > len(self._sent):
            self._send(text[len(self._sent) :])
            self._sent = text

    @property
    def differs(self) -> bool:
        """Whether the answer, as it came out last, is another text than what was passed on."""
        return self._text != self._sent
