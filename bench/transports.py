"""What each transport costs: the same crowd of Python clients over TCP, WebSocket and TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import trustme

from bench import crowd
from bench.generators import Generators, Outcome
from bench.rounds import Series
from bench.servers import Hashserv

CLIENTS: Final = 200
LOOK_UPS: Final = 2_000
_CACHE_BYTES: Final = 64 << 20

_BINDS: Final = {
    "TCP": "localhost:0",
    "TLS": "tls://localhost:0",
    "WebSocket": "ws://localhost:0",
    "WebSocket, TLS": "wss://localhost:0",
}


class Transports:
    """Measures one server over all its transports, in turns.

    Args:
        database: The server's, filled.
        generators: Tell what is in it.
        clients: How many connections at once.
        look_ups: How many each makes, half of them of what is not there.
    """

    def __init__(
        self, database: Path, generators: Generators, *, clients: int, look_ups: int
    ) -> None:
        self._database = database
        self._generators = generators
        self._clients = clients
        rows = list(islice(generators.rows(look_ups), look_ups // 2))
        unknown = [f"{number:064x}" for number in range(look_ups - len(rows))]
        self._taskhashes = [taskhash for taskhash, _, _ in rows] + unknown
        self._unihashes = [unihash for _, _, unihash in rows] + [None] * len(unknown)

    def measure(self, rounds: int) -> Iterator[list[Series]]:
        """Yield the findings so far, after each round."""
        found = [Series(name=name) for name in _BINDS]
        with self._server() as (addresses, authority):
            for _ in range(rounds):
                for series, address in zip(found, addresses, strict=True):
                    series.add(self._under_crowd(address, authority))
                yield found

    @contextmanager
    def _server(self) -> Iterator[tuple[list[str], Path]]:
        directory = self._database.parent
        ca = trustme.CA()
        certificate, authority = directory / "server.pem", directory / "authority.pem"
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        ca.cert_pem.write_to_path(str(authority))
        with Hashserv(
            self._database,
            cache_bytes=_CACHE_BYTES,
            generators=self._generators,
            binds=list(_BINDS.values()),
            more=["--tls-cert", str(certificate)],
        ) as server:
            yield server.addresses, authority

    def _under_crowd(self, address: str, authority: Path) -> Outcome:
        task = crowd.Task(
            address=address,
            clients=self._clients,
            taskhashes=self._taskhashes,
            unihashes=self._unihashes,
        )
        return crowd.outcome(task, {"HASHSERV_TLS_CA": str(authority)})
