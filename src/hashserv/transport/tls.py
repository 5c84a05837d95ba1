"""TLS: the certificates of both ends, checked before they are used, and what goes wrong in words.

Every file is checked when it is read, because OpenSSL's own words name neither the file nor the
cure, and a certificate that has expired would only be noticed by clients.
"""

import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from hashserv.errors import AddressError, HashservError, SettingsError

CA_VARIABLE: Final = "HASHSERV_TLS_CA"
"""Names a file of the certificate authorities that a client trusts, in the system's place."""

CERTIFICATE_VARIABLE: Final = "HASHSERV_TLS_CERT"
KEY_VARIABLE: Final = "HASHSERV_TLS_KEY"
"""Name the files of a client's own certificate and its key; both may be in one."""

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL
)
_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_NO_ISSUER: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
"""Verification results of OpenSSL (X509_V_ERR_…)."""

_TOLD: Final = frozenset(
    {
        "CERTIFICATE_VERIFY_FAILED",
        "NO_SHARED_CIPHER",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "UNSUPPORTED_PROTOCOL",
    }
)
"""Why handshakes fail with peers that speak TLS, and understand when they are told."""


class TlsError(ConnectionError):
    """TLS with a server failed; the message says why, and what to do."""


class ServerTls:
    """The certificate of a server, which can be replaced while it serves.

    Args:
        certificate: The file of the certificate, with those between it and its authority.
        key: The file of its key; `None` where that is in the same.
        client_ca: The file of the authorities whose certificates clients must have; `None` where
            they need none.

    Raises:
        SettingsError: A file can't be used; the message says which, why and what to do.
    """

    def __init__(
        self, certificate: str, key: str | None = None, client_ca: str | None = None
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._current = self._load()
        self.context = self._load()
        """What listening sockets are given. It hands each connection on to the current one."""
        self.context.sslobject_class = _ServerSide
        self.context.sni_callback = self._choose  # called without a name sent, too

    def reload(self) -> None:
        """Read the files again. Connections that are there stay as they are.

        Raises:
            SettingsError: A file can't be used; nothing has changed.
        """
        self._current = self._load()

    def _choose(
        self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> int | None:
        del name, context
        connection.context = self._current
        return None

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        leaf = _load_certificate(context, self._certificate, self._key, SettingsError)
        if self._client_ca is not None:
            # TLS 1.2 could resume a session without showing the client's certificate again, whose
            # authority may be gone by now; 1.3 can't without tickets.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            _load_authorities(context, self._client_ca, SettingsError)
            context.verify_mode = ssl.CERT_REQUIRED
        _check_validity(context, leaf, self._certificate)
        return context


class _ServerSide(ssl.SSLObject):
    """Has a client told why a handshake fails.

    Event loops send what is to be sent while a handshake goes on, and drop it when it fails: the
    alert, and with it the reason. So it goes on once more, until the client closes or time is up.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason not in _TOLD:
                raise
            self._failure = error
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert goes first") from None


def client_context(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return what a client does TLS with, by its environment variables.

    Raises:
        AddressError: A file that a variable names can't be used.
    """
    authorities = environment.get(CA_VARIABLE)
    certificate = environment.get(CERTIFICATE_VARIABLE)
    key = environment.get(KEY_VARIABLE)
    if key and not certificate:
        raise AddressError(f"{KEY_VARIABLE} is set without {CERTIFICATE_VARIABLE}: set both")
    try:
        if authorities:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            variable = CA_VARIABLE
            _load_authorities(context, authorities, AddressError)
        else:
            context = ssl.create_default_context()
        if certificate:
            variable = CERTIFICATE_VARIABLE
            _load_certificate(context, certificate, key or None, AddressError)
    except AddressError as error:
        raise AddressError(f"{variable}: {error}") from error.__cause__
    return context


def wrap(connection: socket.socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Put TLS around a connected socket, which it takes over; the handshake is still to come.

    Args:
        connection: The socket.
        host: The server's name, which its certificate must bear.
        context: How to do TLS.

    Raises:
        AddressError: The name can't be in any certificate.
    """
    try:
        return context.wrap_socket(
            connection,
            server_hostname=host.partition("%")[0] or "localhost",
            do_handshake_on_connect=False,
        )
    except ValueError as error:
        connection.close()
        raise AddressError(f"'{host}' is no name for TLS: {error}; write another") from error
    except BaseException:
        connection.close()
        raise


def explain(error: ssl.SSLError, place: str) -> str:
    """Say in words what is wrong with the TLS of a server, and what to do.

    Args:
        error: What the handshake, or reading or writing, raised.
        place: The server's host and port.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate of {place} {_distrust(error)}"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return f"{place} does not speak TLS: look at the address and its port"
    if "ALERT" not in reason:
        return f"TLS with {place} failed: {reason or error}"
    alert = reason.partition("ALERT_")[2].replace("_", " ").lower()
    if reason.endswith(("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")):
        return (
            f"{place} refused TLS ({alert}): it wants a client's certificate; name its file in "
            f"{CERTIFICATE_VARIABLE} and its key's in {KEY_VARIABLE}"
        )
    return (
        f"{place} refused TLS ({alert}): if that is about the client's certificate, name another "
        f"in {CERTIFICATE_VARIABLE}"
    )


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "has expired: renew it on the server"
    if code == _NOT_YET_VALID:
        return "is not valid yet: compare the clocks of both machines"
    if code in _NO_ISSUER:
        return (
            f"is signed by an authority that is not trusted here ({error.verify_message}): name "
            f"the file of the authority's certificate in {CA_VARIABLE}"
        )
    if code in _OTHER_NAME:
        return (
            f"is made out to another name ({error.verify_message}): connect to a name that is in "
            "the certificate"
        )
    return (
        f"can't be verified: {error.verify_message}; the authorities that are trusted here are "
        f"those of {CA_VARIABLE}, or the system's"
    )


def _load_certificate(
    context: ssl.SSLContext, certificate: str, key: str | None, failure: type[HashservError]
) -> bytes:
    """Load a certificate and its key, and return the former's DER form."""
    found = _CERTIFICATE.search(_read(certificate, "certificate", failure))
    if found is None:
        raise failure(
            f"The file '{certificate}' holds no certificate: it must have a block that begins "
            "with -----BEGIN CERTIFICATE-----"
        )
    key_file = key or certificate
    if not _KEY.search(_read(key_file, "key", failure)):
        raise failure(
            f"The file '{key_file}' holds no private key: it must have a block that begins with "
            "-----BEGIN PRIVATE KEY-----; or name the key's own file"
        )

    def refuse() -> NoReturn:  # a prompt on the terminal would hang a server
        raise failure(
            f"The key in '{key_file}' is encrypted: take the password off, 'openssl pkey -in "
            f"{key_file} -out NEW', and let nobody else read the new file"
        )

    try:
        context.load_cert_chain(certificate, key, refuse)
        return ssl.PEM_cert_to_DER_cert(found[0])
    except (OSError, ValueError) as error:  # OpenSSL's errors are OSErrors
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise failure(
                f"The key in '{key_file}' does not belong to the certificate in '{certificate}': "
                "name the one that it was made with, and the server's certificate first"
            ) from error
        raise failure(
            f"The certificate in '{certificate}' and the key in '{key_file}' can't be used: "
            f"{error}; replace the one that is damaged"
        ) from error


def _load_authorities(context: ssl.SSLContext, file: str, failure: type[HashservError]) -> None:
    """Trust the authorities of a file."""
    if not _CERTIFICATE.search(_read(file, "authorities", failure)):
        raise failure(f"The file '{file}' holds no certificate of an authority: name one in PEM")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # one between them and a root will do
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise failure(f"The authorities in '{file}' can't be used: {error}; replace it") from error
    authorities = context.get_ca_certs()
    now = time.time()
    if authorities and not any(
        ssl.cert_time_to_seconds(str(authority["notBefore"]))
        <= now
        <= ssl.cert_time_to_seconds(str(authority["notAfter"]))
        for authority in authorities
    ):
        raise failure(
            f"The authorities in '{file}' have expired, or are not valid yet: replace it by one "
            "that holds their new certificates"
        )


def _check_validity(context: ssl.SSLContext, leaf: bytes, file: str) -> None:
    """Have a client look at a certificate that trusts just that one.

    Raises:
        SettingsError: It sees that the certificate is of no use now.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=leaf)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (asking, answering, asking):  # then the client has seen it
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            raise SettingsError(f"The certificate in '{file}' has expired: renew it") from error
        if error.verify_code == _NOT_YET_VALID:
            raise SettingsError(
                f"The certificate in '{file}' is not valid yet: look at the clock, or wait"
            ) from error
        raise SettingsError(
            f"Clients would refuse the certificate in '{file}': {error.verify_message}; replace it"
        ) from error
    except ssl.SSLError as error:
        raise SettingsError(
            f"TLS with the certificate in '{file}' fails: {error}; replace it"
        ) from error


def _read(file: str, what: str, failure: type[HashservError]) -> str:
    try:
        return Path(file).read_text(errors="replace")
    except OSError as error:
        raise failure(
            f"The {what} file '{file}' can't be read: {error.strerror}; look at its name and at "
            "who may read it"
        ) from error
