"""Questions to the database that many ask at once: whoever waits for a turn is answered together with all who wait.

When a server comes back, everybody asks the same within seconds. Each alone would be a way to a thread and back and its
own queries; together they are one way, and one look at what several see alike.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fl.outages import is_outage
from realtime.database import THREADS, query
from realtime.tasks import end

Question = TypeVar("Question")
Answer = TypeVar("Answer")

ANSWERED_AT_ONCE = 50
"""One that is slow to answer keeps no more waiting than these."""


class _Asked(Generic[Question, Answer]):
    def __init__(self, question: Question, is_wanted: Callable[[], bool]) -> None:
        self.question = question
        self.is_wanted = is_wanted
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    def settle(self, answer: Answer | Exception | None) -> None:
        """Give the answer, if anybody still waits for it."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Together(Generic[Question, Answer]):
    """One kind of question: the first to come is asked at once, and those who come meanwhile all at a time."""

    def __init__(
        self, answer: Callable[[Sequence[Question]], Sequence[Answer | Exception]], turn: asyncio.Semaphore
    ) -> None:
        """Make a place to ask.

        Args:
            answer: answers questions in their order, each by itself: with an exception where it has none. It runs in a
                thread with the database.
            turn: how many calls there may be at once, also of other kinds of questions.
        """
        self._answer = answer
        self._turn = turn
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question, is_wanted: Callable[[], bool]) -> Answer | None:
        """Return the answer when it is this question's turn; None if it is not wanted any more by then.

        Where more come at once than can be answered in time, what is done for those who were sent away would keep all
        others waiting until they are sent away too.
        """
        asked = _Asked[Question, Answer](question, is_wanted)
        self._waiting.append(asked)
        if len(self._tasks) < THREADS:
            self._tasks.add(asyncio.create_task(self._answer_all()))
        return await asked.answer

    async def stop(self) -> None:
        """Answer nobody any more."""
        await end(self._tasks)

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                async with self._turn:
                    await self._answer_some()
        finally:
            # At one blow with the look: who asks from now on would else count on a task that looks no more.
            if (task := asyncio.current_task()) is not None:
                self._tasks.discard(task)

    async def _answer_some(self) -> None:
        together = [self._waiting.popleft() for _ in range(min(ANSWERED_AT_ONCE, len(self._waiting)))]
        wanted = [asked for asked in together if asked.is_wanted() and not asked.answer.done()]
        for asked in together:
            if asked not in wanted:
                asked.settle(None)
        if not wanted:
            return
        answers = await self._answers_to([asked.question for asked in wanted])
        for asked, answer in zip(wanted, answers, strict=True):
            asked.settle(answer)

    async def _answers_to(self, questions: Sequence[Question]) -> Sequence[Answer | Exception]:
        """Return an answer to each; where the database refuses one of them, the others do not share its fate."""
        try:
            return await query(self._answer, questions)
        except Exception as error:
            if len(questions) == 1 or is_outage(error):
                return [error] * len(questions)
        # Its error ended the transaction of all, whoever's question it was: fewer are asked together each time.
        half = len(questions) // 2
        return [*await self._answers_to(questions[:half]), *await self._answers_to(questions[half:])]
