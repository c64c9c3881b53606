"""A question from when it comes to a scheduler until it is answered, and how its answer reaches the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comem_ray.model.reasoner import Prompt, PromptTooLong, RunningAnswer
from comem_ray.model.sequences import TokenSequence
from serve.messages import ReasonerReply, ReasonerRequest, Refusal
from serve.scheduling.pieces import Pieces

TIMED_OUT = Refusal(
    "timeout", "the answer was not there within its time: ask for a shorter one, or raise `timeout`", "timeout", 504
)
INTERRUPTED = Refusal(
    "interrupted", "the answer had to be begun again and came out otherwise: send the same request again", None, 503, 1
)


@dataclass(eq=False)
class Ticket:
    """A question from when it comes until it is answered."""

    request: ReasonerRequest
    loop: asyncio.AbstractEventLoop
    reply: asyncio.Future[ReasonerReply | Refusal]
    pieces: Pieces | None
    start: float = field(default_factory=time.monotonic)
    prompt: Prompt | None = None
    sequence: TokenSequence | None = None
    running: RunningAnswer | None = None

    @property
    def late(self) -> bool:
        timeout = self.request.timeout_s
        return timeout is not None and time.monotonic() > self.start + timeout


def refusal_of(error: Exception) -> Refusal:
    type = "prompt_too_long" if isinstance(error, PromptTooLong) else "not_finite"
    return Refusal(type, str(error), "question")


def call(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function in the event loop, from any thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)


def resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
