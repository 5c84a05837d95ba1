"""What `hashserv bench` counts: percentiles, throughput, and that both stay bounded."""

import random
from statistics import quantiles

import pytest

from hashserv.bench.tally import MOST_SLOTS, Latencies, Tally, Throughput, Wrong


def test_percentiles_are_right_to_one_percent() -> None:
    source = random.Random(1)
    seconds = [source.lognormvariate(-6, 2) for _ in range(20_000)]
    latencies = Latencies()
    for each in seconds:
        latencies.add(each, 1)
    exact = quantiles(seconds, n=1000)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert latencies.quantile(share) == pytest.approx(exact[round(share * 1000) - 1], rel=0.015)
    assert latencies.most == latencies.quantile(1) == max(seconds)
    assert latencies.mean == pytest.approx(sum(seconds) / len(seconds))


def test_latencies_take_bounded_memory() -> None:
    latencies = Latencies()
    for microseconds in range(1, 3_000_000, 7):
        latencies.add(microseconds / 1e6, 2)
    counts = list(latencies.counts())
    assert len(counts) < 64 * 22
    assert sum(count for _, count in counts) == latencies.count
    assert [seconds for seconds, _ in counts] == sorted(seconds for seconds, _ in counts)


def test_nothing_measured() -> None:
    tally = Tally("none")
    assert (tally.rate, tally.latencies.mean, tally.latencies.quantile(0.5)) == (0, 0, 0)
    assert tally.throughput.rates() == []


def test_throughput_of_a_long_run() -> None:
    throughput = Throughput()
    for second in range(1000):
        throughput.add(second + 0.5, 10)
    assert len(throughput.slots) <= MOST_SLOTS
    assert sum(throughput.slots) == 10_000
    for _, rate in throughput.rates():
        assert rate == pytest.approx(10, rel=0.4)  # a slot ends in the middle of a second


def test_phases_add_up() -> None:
    tally = Tally("build")
    for begin in (100.0, 500.0):  # what passes between them counts nowhere
        tally.begin_phase(begin)
        tally.answered(30, sent=begin, arrived=begin + 1)
        tally.answered(30, sent=begin + 1, arrived=begin + 3)
        tally.end_phase()
    assert (tally.requests, tally.seconds, tally.rate) == (120, 6, 20)
    assert (tally.phases.count, tally.phases.most) == (2, 3)
    assert tally.latencies.most == 2


def test_the_first_wrong_reply_is_kept() -> None:
    tally = Tally("hits")
    tally.refuse(Wrong(b"m t", b"\xff\n", b"u"))
    tally.refuse(Wrong(b"m t2", b"", b"u"))
    assert tally.wrong == 2
    assert "\n" not in str(tally.first_wrong)
    assert str(tally.first_wrong).startswith("asked 'm t', answered ")
