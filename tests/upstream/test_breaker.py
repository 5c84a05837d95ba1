"""The circuit breaker, by itself."""

import logging

import pytest

from hashserv.upstream.breaker import (
    FIRST_PAUSE,
    REFUSED_PAUSE,
    TRIAL_QUESTIONS,
    Breaker,
    State,
)
from hashserv.upstream.failures import Cause
from tests.upstream.asking import logged

LATE = Cause("time-out", lasting=True)
BROKEN = Cause("connection refused", lasting=False)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("far.example:8686")


def half_open(breaker: Breaker) -> None:
    breaker.failed(LATE)
    breaker.probed(None)
    assert breaker.state is State.HALF_OPEN


def test_a_lasting_failure_opens_it_at_once(breaker: Breaker) -> None:
    assert breaker.admit(10**6) == 10**6
    assert breaker.failed(LATE)
    assert not breaker.lets_through
    assert breaker.admit(1) == 0


def test_the_third_broken_connection_in_a_row_opens_it(breaker: Breaker) -> None:
    assert [breaker.failed(BROKEN) for _ in range(2)] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(BROKEN) for _ in range(3)] == [False, False, True]


def test_half_open_lets_one_small_batch_through_at_a_time(breaker: Breaker) -> None:
    half_open(breaker)
    assert breaker.admit(0) == 0
    assert breaker.admit(10_000) == TRIAL_QUESTIONS
    assert breaker.admit(1) == 0
    assert not breaker.lets_through
    breaker.trial_is_over()  # without a result: nobody waited for it any more
    assert breaker.admit(5) == 5
    breaker.succeeded()
    assert breaker.admit(10_000) == 10_000


@pytest.mark.parametrize("cause", [LATE, BROKEN])
def test_half_open_any_failure_opens_it(breaker: Breaker, cause: Cause) -> None:
    half_open(breaker)
    breaker.admit(1)
    assert breaker.failed(cause)
    breaker.probed(None)
    assert breaker.admit(1) == 1  # the trial before is forgotten


def test_pauses_grow_and_begin_anew(breaker: Breaker) -> None:
    breaker.failed(LATE)
    pauses = [breaker.pause]
    for _ in range(3):
        breaker.probed(LATE)
        pauses.append(breaker.pause)
    assert pauses == [1, 2, 4, 4]
    breaker.probed(None)
    breaker.failed(LATE)
    assert breaker.pause == 4
    breaker.probed(None)
    breaker.succeeded()
    breaker.failed(LATE)
    assert breaker.pause == 1


def test_a_pause_grows_when_the_trial_fails(breaker: Breaker) -> None:
    half_open(breaker)
    assert breaker.pause == 1
    breaker.failed(LATE)
    assert breaker.pause == 2


def test_each_change_is_one_line(breaker: Breaker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hashserv.upstream")
    half_open(breaker)
    breaker.failed(LATE)
    breaker.failed(BROKEN)
    breaker.succeeded()
    breaker.probed(BROKEN)
    breaker.probed(None)
    breaker.probed(None)
    breaker.succeeded()
    breaker.succeeded()
    lines = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert [level for level, _ in lines] == ["WARNING", "INFO", "INFO", "INFO", "WARNING"]
    assert all("far.example:8686" in line for _, line in lines)
    assert "time-out" in lines[0][1]
    assert len(logged(caplog)) == 2


def test_who_refuses_us_is_not_asked_again_soon(breaker: Breaker) -> None:
    refused = Cause("it refuses the login", lasting=True, refused=True)
    breaker.failed(refused)
    assert breaker.pause == REFUSED_PAUSE
    breaker.probed(refused)
    assert breaker.pause == REFUSED_PAUSE
    breaker.probed(None)
    breaker.succeeded()
    assert breaker.pause == FIRST_PAUSE
