"""The rules of hash equivalence (PROTOCOL.md §8) over a store; no sockets, no wire formats."""
