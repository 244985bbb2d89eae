"""Asks a server many questions at a time, from ordinary code: an event loop in a thread of its own, replies in the caller's.

The caller gets replies as they come and stores them, so that a kill loses none that was stored. If the caller stops early, the
running requests are cancelled.
"""

import asyncio
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from demur.judges.asked.model_judge import Reply, Unanswered
from demur.judges.served.adaptive_limit import AdaptiveLimit
from demur.judges.served.openai_requests import Trouble
from demur.judges.served.server_settings import ServerSettings
from demur.judges.served.spending import Spending

Request = Mapping[str, JsonValue]
Answered = tuple[int, Reply | Unanswered]

IN_A_ROW = 20
"""After so many requests in a row that were given up, the server counts as down, and no other request is sent."""

_LONGEST_WAIT = 30.0
_END = None


@dataclass
class Asking:
    """The state of asking one server.

    Attributes:
        settings: time limits, numbers of tries, prices.
        send: sends a request once; raises `Trouble`.
        limit: how many requests run at a time.
        spending: what was spent.
        clock: the time in seconds.
    """

    settings: ServerSettings
    send: Callable[[Request], Awaitable[Reply]]
    limit: AdaptiveLimit
    spending: Spending
    clock: Callable[[], float] = time.monotonic
    _stopped: str = ""
    _given_up: int = 0
    _random: random.Random = field(default_factory=random.Random)

    async def all(self, requests: Sequence[Request], tell: Callable[[Answered], None]) -> None:
        """Ask everything, each request until it is answered or given up.

        Args:
            requests: the requests.
            tell: called with the index of each request that is finished and its reply, once for each.
        """
        waiting = deque(enumerate(requests))
        running: set[asyncio.Task[Answered]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < int(self.limit.now) and not self._stopped:
                    if not self.spending.allows(waiting[0][1]):
                        if running:
                            break  # what they really cost may leave enough
                        self._stopped = f"the limit max_cost = {self.settings.max_cost:g} is reached"
                        break
                    place, request = waiting.popleft()
                    self.spending.reserve(request)
                    running.add(asyncio.create_task(self._one(place, request)))
                if self._stopped:
                    # Also the ones that run: their answers are still worth having.
                    while waiting:
                        tell((waiting.popleft()[0], Unanswered(f"not asked, because {self._stopped}")))
                if running:
                    finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in finished:
                        tell(task.result())
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _one(self, place: int, request: Request) -> Answered:
        """Try one request until it is answered, or until its tries or its time are used up."""
        began, tries, crowds = self.clock(), 0, 0
        while True:
            await self._pause()
            sent_at = self.clock()
            try:
                reply = await self.send(request)
            except Trouble as trouble:
                tries, crowds = tries + (not trouble.crowded), crowds + trouble.crowded
                wait = self._wait(trouble, tries + crowds)
                if trouble.crowded:
                    self.limit.refuse(sent_at, self.clock(), wait)
                passed = self.clock() - began
                if given_up := self._gives_up(trouble, tries, passed, wait):
                    self.spending.settle(request, 0.0)
                    return place, self._unanswered(given_up, trouble)
                if not trouble.crowded:
                    await asyncio.sleep(wait)
            else:
                return place, self._priced(request, reply)

    async def _pause(self) -> None:
        """Wait while no request may begin. Then not all begin at the same moment."""
        while (left := self.limit.resume_at - self.clock()) > 0:
            await asyncio.sleep(left * (1 + 0.1 * self._random.random()))

    def _wait(self, trouble: Trouble, tries: int) -> float:
        """Seconds before the next try: what the server asks for, or else twice as long each time, with some chance."""
        if trouble.wait is not None:
            return trouble.wait
        longest = min(_LONGEST_WAIT, self.settings.first_wait_seconds * 2.0 ** min(tries - 1, 16))
        return longest * (0.5 + self._random.random() / 2)

    def _gives_up(self, trouble: Trouble, tries: int, passed: float, wait: float) -> str:
        """The reason to give up a request; empty to try again."""
        if not trouble.again:
            return trouble.reason
        if self._stopped:
            return f"{trouble.reason}; not tried again, because {self._stopped}"
        if tries >= self.settings.max_tries:
            return f"{trouble.reason}; given up after {tries} tries"
        if passed + wait > self.settings.max_seconds:
            asks = f", and the server asks to wait {wait:g} seconds" if trouble.wait else ""
            return f"{trouble.reason}{asks}; given up after {passed:.0f} of {self.settings.max_seconds:g} seconds"
        return ""

    def _unanswered(self, reason: str, trouble: Trouble) -> Unanswered:
        if trouble.hopeless:
            self._stopped = self._stopped or trouble.reason
        elif trouble.again:
            self._given_up += 1
            if self._given_up >= IN_A_ROW and not self._stopped:
                self._stopped = f"{IN_A_ROW} requests in a row were given up: {trouble.reason}"
        return Unanswered(reason)

    def _priced(self, request: Request, reply: Reply) -> Reply:
        """The reply with its cost. If the server does not count tokens, the most that the request can cost is counted."""
        self._given_up = 0
        self.limit.accept()
        counted = reply.input_tokens is not None and reply.output_tokens is not None
        cost = self.spending.cost(reply.input_tokens or 0, reply.output_tokens or 0) if counted else self.spending.most(request)
        self.spending.settle(request, cost)
        return replace(reply, cost=cost)


def replies_of(work: Callable[[Callable[[Answered], None]], Awaitable[None]]) -> Iterator[list[Answered]]:
    """Run asynchronous work in a thread, and give its replies here as they come.

    Args:
        work: a coroutine function that gets a function `tell` and calls it with each reply.

    Yields:
        All replies that have come since the last ones, at least one.

    Raises:
        BaseException: what the work raises.
    """
    come: queue.SimpleQueue[Answered | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(_finished(work, come))
    # A daemon, so that a second Ctrl-C ends the program even if a server does not let go.
    thread = threading.Thread(target=loop.run_until_complete, args=(asyncio.wait([task]),), daemon=True)
    thread.start()
    try:
        ended = False
        while not ended:
            found = [come.get()]
            while not come.empty():
                found.append(come.get())
            ended = found[-1] is _END
            if replies := [one for one in found if isinstance(one, tuple)]:
                yield replies
            for one in found:
                if isinstance(one, BaseException):
                    raise one
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


async def _finished(
    work: Callable[[Callable[[Answered], None]], Awaitable[None]], come: "queue.SimpleQueue[Answered | BaseException | None]"
) -> None:
    try:
        await work(come.put)
    except BaseException as error:
        come.put(error)
    finally:
        come.put(_END)
