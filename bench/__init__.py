"""Requests a second, memory and fairness of the server; see docs/how-to/measure.md."""
