"""What stands for the deployments where only the chat's translation is tested, on a real HTTP server.

The flow records what it is asked, and answers as a test tells it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from comem_ray.config import Config
from serve.http.chat import chat_routes
from serve.messages import QuestionRequest

SOURCE: dict[str, Any] = {"item_id": "a" * 24, "title": "Bulgaria", "text": "...", "score": 0.9}
SOURCE |= {"image_url": "/v1/items/a/image", "page_url": None}
PIECES = ["So", "fia\u2028", "保加利亚", " \U0001f1e7\U0001f1ec."]  # U+2028 ends a line for some clients
Event = tuple[str, dict[str, Any]]


@dataclass
class RecordingFlow:
    """`questions` holds (question, caller). `error` is raised by prepare; `events`, if set, are the stream's."""

    questions: list[tuple[QuestionRequest, str]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=lambda: [SOURCE])
    finish_reason: str = "stop"
    error: Exception | None = None
    events: list[Event] | None = None
    hold: bool = False  # the stream stops before its last event
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def question(self) -> QuestionRequest:
        """The one that came last."""
        return self.questions[-1][0]

    async def prepare(self, question: QuestionRequest, caller: str) -> QuestionRequest:
        self.questions.append((question, caller))
        if self.error is not None:
            raise self.error
        return question

    def body(self, question: QuestionRequest) -> dict[str, Any]:
        return {
            "answer": "".join(PIECES),
            "mode": question.mode,
            "sources": [] if question.mode == "none" else self.sources,
            "timings_ms": {"retrieve": 2.0, "answer": 3.0, "total": 6.0},
            "usage": {"prompt_tokens": 10, "memory_vectors": 8, "completion_tokens": 4},
            "finish_reason": self.finish_reason,
        }

    async def answer(self, prepared: QuestionRequest) -> dict[str, Any]:
        return self.body(prepared)

    async def stream(self, prepared: QuestionRequest) -> AsyncIterator[Event]:
        whole = self.body(prepared)
        tokens: list[Event] = [("token", {"text": piece}) for piece in PIECES]
        events = self.events or [("sources", {"sources": whole["sources"]}), *tokens, ("done", whole)]
        try:
            for event in events[:-1]:
                yield event
            if self.hold:
                await asyncio.sleep(60)
            yield events[-1]
        finally:
            self.closed.set()


@contextmanager
def serving_chat(config: Config, flow: RecordingFlow, fetch: Any = None) -> Iterator[str]:
    """The URL of an application with the chat's routes, while the block runs."""
    app = FastAPI()
    chat_routes(app, flow, config, fetch)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
