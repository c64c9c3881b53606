"""Answers of many users from one model: a new question joins the running answers between two tokens.

One thread runs the model. Before each token it drops answers whose user went away or whose time is up, admits waiting
questions while there is room (rows, and cells of the key-value cache), and then takes one step for all. So a short
answer does not wait for a long one, and a user who leaves frees the place within one token. Callers take turns
(FairQueue).

What fails is done again with fewer at once: half as many where memory ran out, one by one otherwise. So an answer fails
for its own fault only. Knows the reasoner's `Decoding`, but nothing of Ray or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from comem_ray.config import ApiConfig
from comem_ray.finite import NotFinite
from comem_ray.model.reasoner import Completion, Decoding, Prompt, PromptTooLong, Reasoner
from serve.messages import ReasonerReply, ReasonerRequest, Refusal
from serve.metrics import Ending, ReasonerMetrics
from serve.scheduling.fair_queue import FairQueue
from serve.scheduling.health import ReplicaHealth, free_memory, is_out_of_memory
from serve.scheduling.pieces import Pieces
from serve.scheduling.tickets import INTERRUPTED, TIMED_OUT, Ticket, call, fail, refusal_of, resolve

log = logging.getLogger("ray.serve")  # its records carry the request id

HANG_S = 120  # a step or a prefill that takes longer will not come back
JOINED_TOGETHER = 4  # questions, of a queue that is longer than the room
SMOOTHING = 0.2  # of the mean time of an answer, per new answer


class AnswerScheduler:
    """Runs `reasoner` in a thread of its own, where `prompt_of` turns each request into a Prompt or a Refusal."""

    def __init__(
        self,
        reasoner: Reasoner,
        limits: ApiConfig,
        prompt_of: Callable[[ReasonerRequest], Prompt | Refusal],
        check: Callable[[], object],
    ):
        self._reasoner, self._limits, self._prompt_of = reasoner, limits, prompt_of
        self.health, self.metrics = ReplicaHealth(check), ReasonerMetrics()
        self._waiting = FairQueue[Ticket](limits.max_waiting)
        self._again = deque[Ticket]()  # begun, then lost with a failed batch: admitted first
        self._running: list[Ticket] = []
        self._chores = deque[tuple[Callable[[], None], asyncio.AbstractEventLoop, asyncio.Future[None]]]()
        self._decoding: Decoding = reasoner.decoding()
        self._rows = self._joins = limits.max_batch  # lower for a while after a failure
        self._changed = threading.Condition()
        self._busy_since: float | None = None
        self._answer_s = 1.0  # mean time of an answer, smoothed
        self.steps = 0
        self._thread = threading.Thread(target=self._work, name="reasoner", daemon=True)
        self._thread.start()

    async def answer(
        self, request: ReasonerRequest, send: Callable[[str], None] | None = None
    ) -> ReasonerReply | Refusal:
        """The reply to one question. `send` is called in the event loop with each piece of its text.

        Cancelling the call frees its place within one token.
        """
        loop = asyncio.get_running_loop()
        pieces = None if send is None else Pieces(lambda text: call(loop, send, text))
        ticket = Ticket(request, loop, loop.create_future(), pieces)
        with self._changed:
            displaced = self._waiting.put(request.caller, ticket)
            self._changed.notify()
        if displaced is not None:
            self._finish(displaced, self.no_room())
        try:
            reply = await ticket.reply
        finally:
            self._wake()
        log.info("done ms=%.1f", (time.monotonic() - ticket.start) * 1e3)
        return reply

    async def do(self, chore: Callable[[], None]) -> None:
        """Runs a short piece of work in the model's thread, between two tokens."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._changed:
            self._chores.append((chore, loop, done))
            self._changed.notify()
        await done

    def no_room(self) -> Refusal:
        """The refusal of a question for which there is no room; it says when there may be."""
        wait = self._answer_s * (len(self._waiting) + len(self._running)) / self._limits.max_batch
        message = "too many questions are waiting for the reasoner: send the same request again later"
        return Refusal("overloaded", message, None, 429, max(1.0, wait))

    @property
    def counts(self) -> dict[str, int]:
        """What waits and what runs now."""
        waiting = len(self._waiting) + len(self._again)
        return {"waiting": waiting, "running": len(self._running), "cells": self._decoding.cells}

    def check(self) -> None:
        """Raises RuntimeError where the model no longer works, or its thread hangs."""
        self.health.require()
        since = self._busy_since
        if since is not None and time.monotonic() - since > HANG_S:
            raise RuntimeError(f"the model has been at one step for more than {HANG_S} s")
        if not self._thread.is_alive():
            raise RuntimeError("the model's thread has ended")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._chores or self._running or self._again or len(self._waiting)):
                    self._changed.wait()
            self._busy_since = time.monotonic()
            try:
                self._round()
            except Exception:
                log.exception("a round of the scheduler failed")
                self._restart(RuntimeError("a round failed"))
            self._busy_since = None

    def _round(self) -> None:
        """Everything between two tokens, and the next token of all."""
        if self._chores:
            self._do_chore()
        self._drop_left()
        if admitted := self._admit():
            self._join(admitted)
        if self._running:
            try:
                self._decoding.step()
                self.steps += 1
            except Exception as error:
                self._restart(error)
        self.metrics.observe_step(len(self._running), len(self._waiting) + len(self._again), self._decoding.cells)
        self._publish()

    def _do_chore(self) -> None:
        with self._changed:
            chore, loop, done = self._chores.popleft()
        try:
            chore()
            call(loop, resolve, done, None)
        except Exception as error:
            call(loop, fail, done, error)

    def _drop_left(self) -> None:
        """Takes out the answers whose user went away, or whose time is up."""

        def is_over(ticket: Ticket) -> bool:
            return ticket.reply.done() or ticket.late

        with self._changed:
            over = list(self._waiting.take_where(is_over))
        over += [ticket for ticket in self._again if is_over(ticket)]
        dropped = [ticket for ticket in self._running if is_over(ticket)]
        if dropped:
            self._decoding.drop([t.running for t in dropped if t.running is not None])
        for ticket in [*over, *dropped]:
            self._finish(ticket, TIMED_OUT, "cancelled" if ticket.reply.done() else "timed_out")
        self._again = deque(ticket for ticket in self._again if ticket not in over)
        self._running = [ticket for ticket in self._running if ticket not in dropped]

    def _admit(self) -> list[Ticket]:
        """Questions that may join now, in turn. One whose prompt is refused is answered here."""
        admitted: list[Ticket] = []
        if not self._is_worth_a_prefill():
            return admitted
        while len(admitted) < self._joins and len(self._running) + len(admitted) < self._rows:
            ticket = self._next()
            if ticket is None:
                break
            if not self._tokenise(ticket):
                self._take(ticket)
                continue
            if (self._running or admitted) and not self._fit([*admitted, ticket]):
                break
            self._take(ticket)
            admitted.append(ticket)
        return admitted

    def _is_worth_a_prefill(self) -> bool:
        """Whether questions should join now. Where more wait than there is room for, they join several at a time: one
        pass over several prompts costs less than several passes, and who waits would wait anyway."""
        waiting, room = len(self._waiting) + len(self._again), self._rows - len(self._running)
        return room >= min(waiting, JOINED_TOGETHER, self._rows // 2)

    def _next(self) -> Ticket | None:
        with self._changed:
            return self._again[0] if self._again else self._waiting.peek()

    def _take(self, ticket: Ticket) -> None:
        with self._changed:
            if self._again and self._again[0] is ticket:
                self._again.popleft()
            elif self._waiting.peek() is ticket:
                self._waiting.take()
            else:  # the turns changed since
                list(self._waiting.take_where(lambda waiting: waiting is ticket))

    def _tokenise(self, ticket: Ticket) -> bool:
        """Makes the ticket's prompt and its tokens; false where it is answered already, with a refusal."""
        try:
            if ticket.sequence is None:
                prompt = self._prompt_of(ticket.request)
                if isinstance(prompt, Refusal):
                    self._finish(ticket, prompt)
                    return False
                ticket.sequence = self._reasoner.sequence(prompt)
                # The sequence has the patches. A decoded image of 50 megapixels would hold 150 MB while it waits.
                ticket.prompt = replace(prompt, image=None, items=(), history=())
            return True
        except PromptTooLong as error:
            self._finish(ticket, refusal_of(error))
        except Exception as error:
            self._fail(ticket, error)
        return False

    def _fit(self, tickets: list[Ticket]) -> bool:
        """Whether tickets may join: the cache has room until their end, and their prefill keeps no stream waiting for
        longer than that of one long prompt would."""
        lengths = [len(ticket.sequence) for ticket in tickets if ticket.sequence is not None]
        if len(lengths) > 1 and len(lengths) * max(lengths) > self._reasoner.config.max_prompt_tokens:
            return False
        default = self._reasoner.config.max_new_tokens
        limits = [ticket.request.max_new_tokens or default for ticket in tickets]
        cells = self._decoding.cells_with([n + limit for n, limit in zip(lengths, limits, strict=True)])
        return cells <= self._limits.max_cache_tokens

    def _join(self, tickets: list[Ticket]) -> None:
        try:
            prompts = [ticket.prompt for ticket in tickets if ticket.prompt is not None]
            sequences = [ticket.sequence for ticket in tickets if ticket.sequence is not None]
            outcomes = self._decoding.join(prompts, sequences)
        except Exception as error:
            self._join_again(tickets, error)
            return
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._finish(ticket, refusal_of(outcome))
            else:
                ticket.running = outcome
                self._running.append(ticket)

    def _join_again(self, tickets: list[Ticket], error: Exception) -> None:
        """The questions join later, fewer at once; one that was alone fails, unless the others took its memory."""
        memory = is_out_of_memory(error)
        log.warning("%d questions could not join (%s)", len(tickets), type(error).__name__)
        if len(tickets) > 1:
            self._joins = len(tickets) // 2 if memory else 1
        elif memory and self._running:
            self._rows = len(self._running)
        else:
            self._fail(tickets[0], error)
            return
        del error  # its traceback holds what the batch had in memory
        free_memory()
        self._again.extendleft(reversed(tickets))

    def _restart(self, error: Exception) -> None:
        """A step failed, and the cache with it: the running answers begin again, fewer at once."""
        tickets, self._running = self._running, []
        self._decoding = self._reasoner.decoding()
        log.warning("%d running answers begin again (%s)", len(tickets), type(error).__name__)
        if len(tickets) == 1:
            self._fail(tickets[0], error)
            return
        self._rows = max(1, len(tickets) // 2) if is_out_of_memory(error) else 1
        del error
        free_memory()
        self._again.extend(tickets)

    def _publish(self) -> None:
        """Passes on new text, and the outcomes of answers that have ended."""
        ended = []
        for ticket in self._running:
            assert ticket.running is not None
            outcome = ticket.running.outcome
            if ticket.pieces is not None and not isinstance(outcome, Exception):
                ticket.pieces.update(outcome.text if outcome else ticket.running.text)
            if outcome is not None:
                ended.append(ticket)
                self._end(ticket, outcome)
        if ended:
            self._running = [ticket for ticket in self._running if ticket not in ended]

    def _end(self, ticket: Ticket, outcome: Completion | NotFinite) -> None:
        self._rows = min(self._limits.max_batch, self._rows + 1)
        self._joins = min(self._limits.max_batch, self._joins + 1)
        if isinstance(outcome, NotFinite):
            self._finish(ticket, refusal_of(outcome))
            return
        self.health.works()
        self._answer_s += SMOOTHING * (time.monotonic() - ticket.start - self._answer_s)
        if ticket.pieces is not None and ticket.pieces.differs:
            self._finish(ticket, INTERRUPTED)
            return
        tokens = (outcome.prompt_tokens, outcome.memory_vectors, outcome.completion_tokens)
        self._finish(ticket, ReasonerReply(outcome.text, *tokens, outcome.finish_reason), outcome.finish_reason)

    def _finish(self, ticket: Ticket, reply: ReasonerReply | Refusal, ending: Ending = "failed") -> None:
        self.metrics.end_answer(ending)
        call(ticket.loop, resolve, ticket.reply, reply)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        """The question failed alone: it is told, and the replica's model is tried."""
        call(ticket.loop, fail, ticket.reply, error)
        self.health.doubt()
