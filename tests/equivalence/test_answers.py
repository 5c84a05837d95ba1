"""Both caches of answers, the compiled one and the one in Python, do the same."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.equivalence._answers import CompiledAnswers  # it takes a C compiler to install this
from hashserv.equivalence.cache import (
    ENTRY_BYTES,
    MOST_REPLY,
    PURE_PYTHON,
    AnswerCache,
    PythonAnswers,
)
from tests.equivalence.soak import cases

SMALLEST = 2 * (64 * 1024 + 256 * 8)
"""Bytes that two compiled generations with something in them take at least."""

Make = Callable[[int], AnswerCache]


def compiled(max_bytes: int) -> AnswerCache:
    return CompiledAnswers(max_bytes, os.urandom(16))


@pytest.fixture(params=[compiled, PythonAnswers], ids=["compiled", "python"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


DIGITS = [digit * 64 for digit in "0af9"] + ["A" * 64, "g" * 64, "0" * 63, "0" * 65, "0" * 128]
HASHES = st.sampled_from([text.encode() for text in DIGITS])
QUESTIONS = st.one_of(
    st.builds(
        lambda method, taskhash: method + b" " + taskhash, st.binary(max_size=3), HASHES
    ).filter(lambda question: b"\n" not in question),
    HASHES,
    st.sampled_from([b"%d" % number + b"x" * (number % 7) for number in range(40)]),
)
ANSWERS = st.one_of(st.just(b""), st.sampled_from([b"true", b"false", b"x" * 4096]), HASHES)
STEPS = st.lists(
    st.one_of(
        st.tuples(QUESTIONS, ANSWERS),
        st.lists(QUESTIONS, min_size=1, max_size=4),
        st.just("clear"),
    ),
    max_size=60,
)


@cases(1000)
@given(STEPS)
def test_with_room_for_all_nothing_is_forgotten(
    steps: list[tuple[bytes, bytes] | list[bytes] | str],
) -> None:
    for make in (compiled, PythonAnswers):
        cache = make(2**20)
        truth: dict[bytes, bytes] = {}
        for step in steps:
            match step:
                case (question, answer):
                    cache.put(question, answer)
                    truth[question] = answer
                case "clear":
                    cache.clear()
                    truth.clear()
                case list(questions):
                    expected = [truth.get(question) for question in questions]
                    assert cache.answers(questions) == expected
                    known = [answer for answer in expected if answer is not None]
                    lines = b"\n".join([*known, b""]) if None not in expected else None
                    assert cache.reply(b"\n".join([*questions, b""])) == lines
            assert len(cache) == len(truth)


@cases(1000)
@given(STEPS, st.integers(0, 20))
def test_what_is_forgotten_is_unknown_never_wrong(
    steps: list[tuple[bytes, bytes] | list[bytes] | str], entries: int
) -> None:
    cache = PythonAnswers(entries * ENTRY_BYTES)
    truth: dict[bytes, bytes] = {}
    for step in steps:
        match step:
            case (question, answer):
                cache.put(question, answer)
                truth[question] = answer
                assert cache.answers([question]) == [answer] or entries < 4
            case "clear":
                cache.clear()
            case list(questions):
                for asked, told in zip(questions, cache.answers(questions), strict=True):
                    assert told in (None, truth.get(asked))
    assert cache.size <= entries * ENTRY_BYTES + 2 * (ENTRY_BYTES + 4096 + 200)
    assert len(cache) <= entries + 2


def numbered(number: int) -> bytes:
    return b"m%d %064x" % (number % 3, number)


def test_a_bound_is_kept_and_answers_are_never_wrong(make: Make) -> None:
    bound = 4 * SMALLEST
    cache = make(bound)
    for number in range(20_000):
        question = numbered(number)
        cache.put(question, b"")  # builds ask for what is unknown, then report it
        cache.put(question, b"%064x" % (number + 1))
        assert cache.answers([question]) == [b"%064x" % (number + 1)]
        if number % 64 == 0:
            assert cache.size <= bound
            some = [numbered(each) for each in range(0, number, 97)]
            for each, answer in zip(range(0, number, 97), cache.answers(some), strict=True):
                assert answer in (None, b"%064x" % (each + 1))
    assert 500 < len(cache) < 20_000


def test_the_smallest_caches_keep_their_bound_too(make: Make) -> None:
    for bound in (1, 1000, 100_000):
        cache = make(bound)
        for number in range(5000):
            cache.put(numbered(number), b"%064x" % number)
        assert cache.size <= max(bound, SMALLEST)
    cache = make(0)
    cache.put(b"a b", b"c")
    assert cache.answers([b"a b"]) == [None]
    assert cache.reply(b"a b\n") is None
    assert cache.size == len(cache) == 0


def test_what_is_asked_for_stays_and_what_is_not_goes(make: Make) -> None:
    cache = make(2 * SMALLEST)
    for number in range(20_000):
        cache.put(numbered(number), b"%064x" % number)
        assert cache.reply(numbered(0) + b"\n") == b"0" * 64 + b"\n"
    assert cache.answers([numbered(1)]) == [None]


def test_more_methods_than_are_numbered(make: Make) -> None:
    cache = make(2**22)
    questions = [b"method-%d %s" % (number % 300, b"%064x" % number) for number in range(3000)]
    for at, question in enumerate(questions):
        cache.put(question, b"%d" % at)
    assert cache.answers(questions) == [b"%d" % at for at in range(3000)]
    assert cache.answers([b"method-0 %064x" % 1, b"%064x" % 0]) == [None, None]


@pytest.mark.parametrize("length", [4095, 4096, 4097, 70_000])
def test_long_texts(make: Make, length: int) -> None:
    """One that is too long for the compiled cache is not remembered, and costs no other answer."""
    cache = make(2**22)
    fits = length <= 4096 or make is PythonAnswers
    question, answer = b"q" * length, b"a" * length
    cache.put(b"other", b"kept")
    cache.put(b"m t", b"short")
    cache.put(question, b"x")
    cache.put(b"m t", answer)  # a former answer would be wrong now
    cached = [answer, b"x"] if fits else [None, None]
    assert cache.answers([b"m t", question, b"other"]) == [*cached, b"kept"]
    assert cache.reply(b"m t\n") == (answer + b"\n" if fits else None)
    cache.put(b"m t", b"short again")
    assert cache.answers([b"m t"]) == [b"short again"]


def test_an_answer_that_is_too_long_hides_one_of_the_old_generation() -> None:
    for count in range(0, 2000, 50):
        cache = compiled(2 * SMALLEST)
        cache.put(b"m t", b"short")
        for number in range(count):  # at some count there is a young generation after it
            cache.put(numbered(number), b"%064x" % number)
        cache.put(b"m t", b"a" * 4097)
        assert cache.answers([b"m t"]) == [None]


def test_replies_are_no_longer_than_their_bound(make: Make) -> None:
    cache = make(2**22)
    cache.put(b"q", b"a" * 1023)
    cache.put(b"", b"")
    most = MOST_REPLY // 1024
    assert cache.reply(b"q\n" * most) == (b"a" * 1023 + b"\n") * most
    assert cache.reply(b"q\n" * most + b"\n") is None
    assert cache.answers([b"q"] * (most + 1)) == [b"a" * 1023] * (most + 1)


def test_lines_that_are_not_whole_are_not_answered(make: Make) -> None:
    cache = make(2**20)
    cache.put(b"m t", b"u")
    cache.put(b"", b"nothing")
    assert cache.reply(b"m t\nm t\n") == b"u\nu\n"
    assert cache.reply(b"m t\n\n") == b"u\nnothing\n"
    assert cache.reply(b"m t \n") is None


def test_the_compiled_cache_takes_bytes_only() -> None:
    cache = compiled(2**20)
    for wrong in ("m t", None, 1, bytearray(b"m t")):
        with pytest.raises(TypeError):
            cache.reply(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            cache.answers([wrong])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            cache.put(b"m t", wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cache.answers((b"m t",))  # type: ignore[arg-type]
    for max_bytes, seed in ((-1, bytes(16)), (1, bytes(15))):
        with pytest.raises(ValueError, match="seed"):
            CompiledAnswers(max_bytes, seed)


def test_a_compiled_entry_takes_a_third_of_one_in_python() -> None:
    sizes = []
    for make in (compiled, PythonAnswers):
        cache = make(2**30)
        for number in range(50_000):
            cache.put(numbered(number), b"%064x" % number)
        sizes.append(cache.size / 50_000)
    assert sizes[0] <= 110, "150 with what the process adds"
    assert sizes[0] * 3 <= sizes[1]


def test_nothing_compiled_is_used_where_that_is_asked_for() -> None:
    script = "from hashserv.equivalence.cache import new_cache; print(type(new_cache(1)).__name__)"
    names = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, PURE_PYTHON: value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for value in ("", "1")
    ]
    assert names == ["CompiledAnswers\n", "PythonAnswers\n"]
