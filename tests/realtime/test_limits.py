from realtime.limits import ErrorBudget, TokenBucket
from realtime.process import retry_ms


def test_a_burst_passes_and_then_one_message_for_each_interval():
    bucket = TokenBucket(rate=5, burst=10, now=0.0)

    assert [bucket.take(0.0) for _ in range(10)] == [0.0] * 10
    assert bucket.take(0.0) == 0.2
    assert bucket.take(0.2) == 0.0
    assert bucket.take(0.2) > 0


def test_a_bucket_never_holds_more_than_its_burst():
    bucket = TokenBucket(rate=5, burst=2, now=0.0)

    assert [bucket.take(100.0) > 0 for _ in range(3)] == [False, False, True]


def test_the_tenth_mistake_in_a_minute_is_one_too_many():
    budget = ErrorBudget(10)

    assert [budget.spend(float(n)) for n in range(10)] == [False] * 9 + [True]


def test_mistakes_that_are_far_apart_are_forgiven():
    budget = ErrorBudget(10)

    assert not any(budget.spend(n * 7.0) for n in range(100))


def test_how_close_together_mistakes_have_to_be_is_a_setting(settings):
    settings.QFLARE_MISTAKES_WITHIN_SECONDS = 5
    budget = ErrorBudget(3)

    assert [budget.spend(float(n)) for n in (0, 3, 6)] == [False] * 3
    assert budget.spend(7.0)


def test_clients_come_back_spread_over_the_time_that_is_set(settings):
    settings.QFLARE_RETURN_SECONDS = (2, 2.005)

    assert {retry_ms() for _ in range(500)} == {2000, 2001, 2002, 2003, 2004, 2005}
