"""The clients of a hash equivalence server."""

from hashserv.client.aio import AsyncClient
from hashserv.client.sync import Client

__all__ = ["AsyncClient", "Client"]
