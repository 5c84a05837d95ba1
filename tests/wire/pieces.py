"""Cut bytes into the pieces in which a network may deliver them."""

from hypothesis import strategies as st


def splits(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Generate ways to cut bytes anywhere, into no piece more than there are bytes."""
    places = st.lists(st.integers(0, len(data)), max_size=12).map(sorted)
    return places.map(lambda cuts: cut(data, cuts))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at the given places."""
    ends = [*cuts, len(data)]
    return [data[start:end] for start, end in zip([0, *cuts], ends, strict=True)]


def bytewise(data: bytes) -> list[bytes]:
    """Cut bytes into single ones."""
    return [data[at : at + 1] for at in range(len(data))]
