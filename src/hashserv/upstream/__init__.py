"""Asking an upstream server: fast, in batches, and so that it can't hurt (PROTOCOL.md §8)."""
