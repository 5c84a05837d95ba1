"""The size of batches."""

from hashserv.upstream.pace import LEAST, Pace


def test_fast_batches_grow_to_the_most() -> None:
    pace = Pace(8192, 5.0)
    sizes = [pace.size]
    for _ in range(3):
        pace.took(pace.size, 0.1)
        sizes.append(pace.size)
    assert sizes == [4096, 8192, 8192, 8192]


def test_a_small_batch_says_nothing_about_large_ones() -> None:
    pace = Pace(8192, 5.0)
    pace.took(10, 0.01)
    assert pace.size == 4096


def test_slow_batches_shrink_to_the_least() -> None:
    pace = Pace(8192, 5.0)
    pace.took(3000, 4.0)
    assert pace.size == 1500
    for _ in range(10):
        pace.took(pace.size, 5.0)
    assert pace.size == LEAST


def test_in_between_nothing_changes() -> None:
    pace = Pace(8192, 5.0)
    pace.took(4096, 1.0)
    assert pace.size == 4096
