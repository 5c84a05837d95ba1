"""The clients, against real servers."""
