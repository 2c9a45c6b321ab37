from __future__ import annotations

import logging

import pytest

from softcask.pipeline.store.access.retries import Retries


class Clock:
    """Time that passes only by sleeping, and by `cost` seconds a request."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now, self.cost, self.waits = 100.0, cost, list[float]()

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def retries(self, **changes: float) -> Retries:
        named = {"sleep": self.sleep, "clock": lambda: self.now, "jitter": lambda: 1.0}
        return Retries(**{**named, **changes})  # type: ignore[arg-type]


class Server:
    """Fails with each of `errors` in turn, then answers."""

    def __init__(self, clock: Clock, *errors: Exception) -> None:
        self.clock, self.errors, self.asked = clock, list(errors), 0

    def __call__(self) -> str:
        self.asked += 1
        self.clock.now += self.clock.cost
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def failing(clock: Clock, times: int) -> Server:
    return Server(clock, *(ConnectionResetError(f"number {n}") for n in range(times)))


def test_what_succeeds_is_asked_once() -> None:
    clock = Clock()
    server = failing(clock, 0)
    assert clock.retries().run(server) == "answer"
    assert (server.asked, clock.waits) == (1, [])


def test_waits_double_up_to_the_longest() -> None:
    clock = Clock()
    assert clock.retries(attempts=20, deadline=1e9).run(failing(clock, 9)) == "answer"
    assert clock.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0]


def test_jitter_takes_a_share_of_each_wait() -> None:
    clock = Clock()
    shares = iter([0.5, 0.0, 0.25])
    Retries(sleep=clock.sleep, jitter=lambda: next(shares)).run(failing(clock, 3))
    assert clock.waits == [0.1, 0.0, 0.2]


def test_attempts_have_an_end_and_the_last_error_tells_of_them() -> None:
    clock = Clock()
    server = failing(clock, 10**3)
    with pytest.raises(ConnectionResetError, match="number 3") as raised:
        clock.retries(attempts=4).run(server)
    assert server.asked == 4
    assert raised.value.__notes__ == ["given up after 4 attempts in 1 s"]


def test_seconds_have_an_end_too_and_none_is_waited_for_nothing() -> None:
    clock = Clock(cost=30.0)
    server = failing(clock, 10**3)
    with pytest.raises(ConnectionResetError) as raised:
        clock.retries(deadline=100.0).run(server)
    assert server.asked == 4  # after 30.0, 60.2, 90.6 s; after 121.4 s it is over
    assert clock.waits == [0.2, 0.4, 0.8]
    assert raised.value.__notes__ == ["given up after 4 attempts in 121 s"]
    again = Clock()
    with pytest.raises(ConnectionResetError):
        again.retries(deadline=0.5).run(failing(again, 10))
    assert again.waits == [0.2]  # 0.4 s more would have ended past the deadline


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError("x"), PermissionError("x"), KeyError("x")]
)
def test_what_will_not_pass_is_raised_at_once(error: Exception) -> None:
    clock = Clock()
    server = Server(clock, error)
    with pytest.raises(type(error)):
        clock.retries().run(server)
    assert (server.asked, clock.waits) == (1, [])
    assert not hasattr(error, "__notes__")


def test_an_error_that_will_not_pass_ends_what_began_with_one_that_may() -> None:
    clock = Clock()
    server = Server(clock, TimeoutError("slow"), PermissionError("no"))
    with pytest.raises(PermissionError):
        clock.retries().run(server)
    assert server.asked == 2


def test_the_third_failure_in_a_row_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, logger="softcask"):
        clock.retries().run(failing(clock, 4))
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING", "WARNING"]
    assert "the store's server: ConnectionResetError (attempt 3), again in 0.8 s" in caplog.text
