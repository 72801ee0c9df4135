"""How often services and projects may be called."""

from ingress.rate import Bucket, Crowd, Rates


def crowd(per_s: int = 0, in_flight: int = 0, queued: int = 0, workers: int = 1, waiting: int = 0) -> Crowd:
    made = Crowd(lambda: waiting)
    made.change(per_s, in_flight, queued, workers, 0)
    return made


def entered(rates: Rates, times: int, now: float = 0) -> int:
    return sum(rates.enter(now) is None for _ in range(times))


def test_a_bucket_lets_through_its_rate_and_what_a_second_left_over() -> None:
    bucket = Bucket(10, 0)
    assert [bucket.take(0) for _ in range(10)] == [0] * 10
    assert bucket.take(0) == 0.1
    assert bucket.take(0.1) == 0
    assert sum(bucket.take(100) == 0 for _ in range(50)) == 10


def test_less_than_one_a_second_is_possible() -> None:
    bucket = Bucket(0.5, 0)
    assert bucket.take(0) == 0
    assert bucket.take(0) == 2
    assert bucket.take(2) == 0


def test_over_a_minute_the_rate_is_exact() -> None:
    rates = Rates("shop", crowd())
    rates.change(50, 1, 0)
    assert sum(entered(rates, 1, step / 1000) for step in range(60_000)) == 50 + 50 * 60 - 1


def test_a_workers_share_is_a_part_of_the_whole() -> None:
    rates = Rates("shop", crowd(per_s=100, in_flight=10, workers=4))
    assert entered(rates, 100) == 3
    rates = Rates("shop", crowd(per_s=100, workers=4))
    assert entered(rates, 100) == 25


def test_the_refusal_says_which_limit_its_value_and_when_to_come_again() -> None:
    rates = Rates("shop", crowd(per_s=2))
    assert entered(rates, 2) == 2
    assert rates.enter(0) == ("rate-limited", "project shop takes 2 requests a second", 0.5)
    rates = Rates("shop", crowd())
    rates.change(1, 1, 0)
    rates.enter(0)
    assert rates.enter(0) == ("rate-limited", "this service takes 1 requests a second", 1)


def test_what_the_project_refuses_is_not_taken_from_the_service() -> None:
    shared = crowd(per_s=1)
    one, other = Rates("shop", shared), Rates("shop", shared)
    one.change(5, 1, 0)
    assert entered(other, 1) == 1
    for _ in range(20):
        assert one.enter(0) is not None
    assert one.enter(1) is None


def test_requests_in_flight_are_bounded_and_make_room_when_they_end() -> None:
    rates = Rates("shop", crowd(in_flight=2))
    assert rates.enter(0) is None
    assert entered(rates, 3) == 1
    refused = rates.enter(0)
    assert refused is not None
    assert refused[0] == "project-full"
    rates.crowd.leave()
    assert entered(rates, 3) == 1


def test_requests_that_wait_are_bounded() -> None:
    assert entered(Rates("shop", crowd(queued=5, waiting=4)), 1) == 1
    assert entered(Rates("shop", crowd(queued=5, waiting=5)), 1) == 0


def test_revisions_are_not_asked_for_each_request_while_the_line_cannot_be_full() -> None:
    asked = []
    waiting = 0
    crowd = Crowd(lambda: asked.append(1) or waiting)
    crowd.change(0, 0, 100, 1, 0.0)
    rates = Rates("shop", crowd)
    for _ in range(1000):
        assert rates.enter(0.0) is None
        crowd.leave()
    assert len(asked) == 10
    waiting = 99
    for _ in range(100):
        rates.enter(0.0)
    waiting = 100
    assert rates.enter(0.0) is not None
    waiting = 99
    assert rates.enter(0.0) is None
