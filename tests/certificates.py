"""Certificates for tests, in files as an administrator would have them."""

import datetime as dt
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

_DAY = dt.timedelta(days=1)


class Certificates:
    """An authority, and what it issues, written into a directory.

    Args:
        directory: Where the files go.
        name: What the names of its files begin with.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._authority = trustme.CA(organization_name=f"{name} of tests")
        self.authority = self._write("authority.pem", self._authority.cert_pem.bytes())

    def server(self, *names: str, days: tuple[int, int] = (-1, 30)) -> str:
        """Write the certificate of a server and its key into one file, and return its name.

        Args:
            names: The names and addresses that it is made out to; else the usual local ones.
            days: From when to when it is valid, counted from now.
        """
        certificate = self._issue(*(names or ("localhost", "127.0.0.1", "::1")), days=days)
        return self._write(
            f"server{days[0]}{days[1]}{''.join(names)}.pem",
            certificate.private_key_and_cert_chain_pem.bytes(),
        )

    def apart(self) -> tuple[str, str]:
        """Write the certificate of a server and its key into files of their own."""
        certificate = self._issue("localhost", "127.0.0.1", days=(-1, 30))
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        return (
            self._write("apart.crt", chain),
            self._write("apart.key", certificate.private_key_pem.bytes()),
        )

    def client(self, name: str = "client@example.org", days: tuple[int, int] = (-1, 30)) -> str:
        """Write the certificate of a client and its key into one file."""
        certificate = self._issue(name, days=days)
        return self._write(
            f"client{days[1]}.pem", certificate.private_key_and_cert_chain_pem.bytes()
        )

    def expired_authority(self) -> str:
        """Write the certificate of an authority whose time is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name.from_rfc4514_string("CN=expired authority of tests")
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - 9 * _DAY)
            .not_valid_after(now - _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, SHA256())
        )
        return self._write("expired.pem", certificate.public_bytes(Encoding.PEM))

    def context(self, client: str | None = None) -> ssl.SSLContext:
        """Return what trusts this authority and no other, with a client's certificate or none."""
        context = ssl.create_default_context(cafile=self.authority)
        if client is not None:
            context.load_cert_chain(client)
        return context

    def _issue(self, *names: str, days: tuple[int, int]) -> trustme.LeafCert:
        now = dt.datetime.now(dt.UTC)
        return self._authority.issue_cert(
            *names, not_before=now + days[0] * _DAY, not_after=now + days[1] * _DAY
        )

    def _write(self, name: str, data: bytes) -> str:
        path = self._directory / f"{self._name}-{name}"
        path.write_bytes(data)
        return str(path)
