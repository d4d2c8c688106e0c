"""Questions that many ask at once are answered together, each as if it had been asked alone."""

import asyncio
import threading
import time

import pytest
from django.db import DataError, OperationalError

from realtime.database import THREADS
from realtime.together import ANSWERED_AT_ONCE, Together
from tests.realtime.sockets import eventually


class Desk:
    """Answers numbers with their doubles, when it is let; odd ones with an error, and notes which came together."""

    def __init__(self):
        self.asked = []
        self.lets = threading.Event()
        self.is_away = False
        self.refused = set()
        self.together = Together(self.answer, asyncio.Semaphore(THREADS))

    def answer(self, numbers):
        self.asked.append(list(numbers))
        assert self.lets.wait(60)
        if self.is_away:
            raise OperationalError("the database is away")
        if self.refused.intersection(numbers):
            raise DataError("the database refuses a question")
        return [ValueError(f"{number} is odd") if number % 2 else 2 * number for number in numbers]

    def ask(self, number, is_wanted=lambda: True):
        return asyncio.ensure_future(self.together.ask(number, is_wanted))

    async def ask_busy(self, numbers):
        """Ask while as many calls are under way as there may be."""
        first = []
        for number in range(THREADS):
            first.append(self.ask(2 * number))
            await eventually(lambda number=number: len(self.asked) == number + 1)
        return first, [self.ask(number) for number in numbers]


@pytest.fixture
async def desk(transactional_db):
    desk = Desk()
    yield desk
    desk.lets.set()
    await desk.together.stop()


async def test_who_comes_alone_is_asked_alone_and_at_once(desk):
    desk.lets.set()

    assert await desk.ask(4) == 8
    with pytest.raises(ValueError, match="5 is odd"):
        await desk.ask(5)

    assert desk.asked == [[4], [5]]


async def test_who_comes_while_all_are_busy_is_asked_with_all_who_wait_and_each_gets_its_own_answer(desk):
    numbers = range(100, 100 + ANSWERED_AT_ONCE + 10)
    first, later = await desk.ask_busy(numbers)

    desk.lets.set()

    assert await asyncio.gather(*first) == [4 * number for number in range(THREADS)]
    answers = await asyncio.gather(*later, return_exceptions=True)
    for number, answer in zip(numbers, answers, strict=True):
        assert answer == 2 * number if number % 2 == 0 else str(answer) == f"{number} is odd"
    assert sorted(len(numbers) for numbers in desk.asked[THREADS:]) == [10, ANSWERED_AT_ONCE]


async def test_who_asks_again_as_soon_as_all_have_been_answered_is_answered(desk):
    answers = []

    async def ask(number):
        answers.append(await desk.together.ask(number, lambda: True))
        if len(answers) == 1:
            answers.append(await desk.together.ask(100, lambda: True))

    asking = []
    for number in range(THREADS):
        asking.append(asyncio.ensure_future(ask(2 * number)))
        await eventually(lambda number=number: len(desk.asked) == number + 1)

    desk.lets.set()
    # All calls end meanwhile, and it hears of them in one turn.
    time.sleep(0.3)  # noqa: ASYNC251 – the loop is to stand still

    async with asyncio.timeout(30):
        await asyncio.gather(*asking)
    assert sorted(answers) == [0, 4, 8, 12, 200]


async def test_who_does_not_want_it_any_more_or_has_gone_is_not_asked_for(desk):
    _, (stays, goes) = await desk.ask_busy([100, 102])
    unwanted = desk.ask(104, is_wanted=lambda: False)
    await asyncio.sleep(0)

    goes.cancel()
    await asyncio.wait([goes])
    desk.lets.set()

    assert (await stays, await unwanted) == (200, None)
    assert desk.asked[THREADS:] == [[100]]


async def test_when_nobody_can_be_asked_all_hear_why_and_the_next_is_asked_again(desk):
    desk.is_away = True
    _, later = await desk.ask_busy([100, 102])
    desk.lets.set()

    errors = await asyncio.gather(*later, return_exceptions=True)
    desk.is_away = False

    assert [str(error) for error in errors] == ["the database is away"] * 2
    assert desk.asked[THREADS:] == [[100, 102]]
    assert await desk.ask(4) == 8


async def test_a_question_that_the_database_refuses_keeps_nobody_else_from_an_answer(desk):
    desk.refused = {110, 113}
    numbers = range(100, 100 + ANSWERED_AT_ONCE)
    _, later = await desk.ask_busy(numbers)
    desk.lets.set()

    answers = await asyncio.gather(*later, return_exceptions=True)

    for number, answer in zip(numbers, answers, strict=True):
        if number in desk.refused:
            assert str(answer) == "the database refuses a question"
        else:
            assert answer == 2 * number if number % 2 == 0 else str(answer) == f"{number} is odd"
    assert len(desk.asked) - THREADS <= 30
