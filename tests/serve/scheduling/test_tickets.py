"""A ticket is late when its own time is up; results reach an event loop from any thread, once."""

from __future__ import annotations

import asyncio
import threading
import time

from comem_ray.model.reasoner import PromptTooLong
from serve.messages import ReasonerReply, ReasonerRequest
from serve.scheduling.tickets import Ticket, call, fail, refusal_of, resolve


def test_a_ticket_is_late_when_its_time_is_up() -> None:
    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        late = []
        for timeout in (None, 60, 0.01):
            request = ReasonerRequest("?", [], "none", timeout_s=timeout)
            ticket = Ticket(request, loop, loop.create_future(), None)
            time.sleep(0.02)
            late.append(ticket.late)
        return late

    assert asyncio.run(main()) == [False, False, True]


def test_the_first_result_from_any_thread_counts() -> None:
    async def main() -> ReasonerReply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ReasonerReply] = loop.create_future()
        first, second = (ReasonerReply(text, 1, 0, 1) for text in ("first", "second"))

        def work() -> None:
            call(loop, resolve, future, first)
            call(loop, resolve, future, second)
            call(loop, fail, future, ValueError())

        threading.Thread(target=work).start()
        return await future

    assert asyncio.run(main()).answer == "first"


def test_a_loop_that_is_gone_is_left_alone() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    call(loop, print, "never")


def test_a_prompt_that_is_too_long_is_the_questions_fault() -> None:
    refusal = refusal_of(PromptTooLong("too long"))
    assert (refusal.type, refusal.field, refusal.status) == ("prompt_too_long", "question", 422)
