"""TLS: certificates that are good and bad, on both sides, and what is said of them."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hashserv.address import TlsAddress
from hashserv.errors import AddressError, ConnectionClosedError, SettingsError
from hashserv.transport.tls import ServerTls, TlsError, client_context
from tests.certificates import Certificates
from tests.transport.loops import SECONDS, Echo, Serving
from tests.transport.streams import Open, receive_lines

Make = Callable[[Certificates, Certificates], ServerTls]


def encrypted(certificates: Certificates) -> tuple[str, str]:
    """Return a certificate's file and that of its key with a password."""
    certificate, key = certificates.apart()
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-out", f"{key}.enc", "-aes256", "-passout", "pass:x"],
        check=True,
    )
    return certificate, f"{key}.enc"


def damaged(file: str) -> str:
    """Return a copy of a file that is not what it was."""
    text = Path(file).read_text()
    cut = text.index("-----END")
    Path(f"{file}.damaged").write_text(text[: cut - 200] + text[cut:])
    return f"{file}.damaged"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _ours, _: ServerTls("/none"), "'/none' can't be read: No such file"),
        (lambda _ours, _: ServerTls("/"), "'/' can't be read: Is a directory"),
        (lambda _ours, _: ServerTls(os.devnull), "holds no certificate: it must"),
        (lambda ours, _: ServerTls(ours.apart()[1]), "apart.key' holds no certificate"),
        (lambda ours, _: ServerTls(ours.apart()[0]), "apart.crt' holds no private key"),
        (lambda ours, _: ServerTls(ours.server(), "/none"), "key file '/none' can't be read"),
        (lambda ours, _: ServerTls(ours.server(), os.devnull), "holds no private key"),
        (
            lambda ours, others: ServerTls(ours.apart()[0], others.apart()[1]),
            "other-apart.key' does not belong to the certificate in .*ca-apart.crt'",
        ),
        (lambda ours, _: ServerTls(*encrypted(ours)), "is encrypted: take the password off"),
        (lambda ours, _: ServerTls(damaged(ours.server())), "can't be used: .* damaged"),
        (lambda ours, _: ServerTls(ours.server(days=(-9, -1))), "has expired: renew it"),
        (lambda ours, _: ServerTls(ours.server(days=(1, 9))), "is not valid yet: look at"),
        (lambda ours, _: ServerTls(ours.server(), None, "/none"), "'/none' can't be read"),
        (lambda ours, _: ServerTls(ours.server(), None, os.devnull), "no certificate of an auth"),
        (
            lambda ours, _: ServerTls(ours.server(), None, damaged(ours.authority)),
            "authorities in '.*damaged' can't be used: .* replace it",
        ),
    ],
)
def test_files_that_can_not_be_used(
    make: Make, words: str, certificates: Certificates, others: Certificates
) -> None:
    with pytest.raises(SettingsError, match=words):
        make(certificates, others)


def test_authorities_that_have_expired(tmp_path: Path, certificates: Certificates) -> None:
    old = certificates.expired_authority()
    with pytest.raises(SettingsError, match=r"expired.pem' have expired, or are not valid yet"):
        ServerTls(certificates.server(), None, old)
    both = tmp_path / "both.pem"
    both.write_text(Path(old).read_text() + Path(certificates.authority).read_text())
    ServerTls(certificates.server(), None, str(both))


def test_certificate_and_key_may_be_one_file_or_two(certificates: Certificates) -> None:
    ServerTls(certificates.server())
    ServerTls(*certificates.apart())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_lines_go_both_ways(
    open_stream: Open, loop: str, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.context()
    context.minimum_version = context.maximum_version = version
    with Serving(Echo, loop, ServerTls(certificates.server()).context) as serving:
        stream = open_stream(TlsAddress("localhost", serving.port), context)
        assert stream.stream.chunks
        stream.send(b"first\n")
        assert receive_lines(stream, 1) == [b"first"]
        lines = [b"%d" % number * 9 for number in range(500_000)]
        stream.send(b"\n".join([*lines, b""]))  # more than the buffers hold: it must read, too
        assert receive_lines(stream, len(lines)) == lines
        stream.close()
        stream.close()


def test_the_server_closes(open_stream: Open, loop: str, certificates: Certificates) -> None:
    echo = Echo()
    with Serving(lambda: echo, loop, ServerTls(certificates.server()).context) as serving:
        stream = open_stream(TlsAddress("127.0.0.1", serving.port), certificates.context())
        stream.send(b"a\n")
        assert receive_lines(stream, 1) == [b"a"]
        serving.call(echo.transport.write, b"b\n")
        serving.call(echo.transport.close)
        assert receive_lines(stream, 1) == [b"b"]
        for _ in range(2):
            with pytest.raises(ConnectionClosedError):
                stream.receive()


def test_no_reply_in_time(open_stream: Open, certificates: Certificates) -> None:
    with Serving(
        lambda: Echo(answers=False), tls=ServerTls(certificates.server()).context
    ) as serving:
        stream = open_stream(TlsAddress("127.0.0.1", serving.port), certificates.context())
        stream.send(b"a\n")
        with pytest.raises(ConnectionError, match="Timed out waiting for data"):
            stream.receive(0.01)


@pytest.mark.parametrize(
    ("names", "trusts", "words"),
    [
        ((), "other", r"signed by an authority that is not trusted here .* HASHSERV_TLS_CA"),
        (("elsewhere.example",), "ca", r"made out to another name \(Hostname mismatch.*: connect"),
    ],
)
def test_certificates_that_a_client_refuses(
    open_stream: Open,
    certificates: Certificates,
    others: Certificates,
    names: tuple[str, ...],
    trusts: str,
    words: str,
) -> None:
    context = (certificates if trusts == "ca" else others).context()
    with (
        Serving(Echo, tls=ServerTls(certificates.server(*names)).context) as serving,
        pytest.raises(TlsError, match=f"certificate of localhost:{serving.port} .*{words}"),
    ):
        open_stream(TlsAddress("localhost", serving.port), context)


@pytest.mark.parametrize(
    ("days", "words"), [((-9, -1), "has expired: renew it"), ((1, 9), "not valid yet: compare")]
)
def test_certificates_out_of_their_time(
    open_stream: Open, certificates: Certificates, days: tuple[int, int], words: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server(days=days))
    with Serving(Echo, tls=context) as serving, pytest.raises(TlsError, match=words):
        open_stream(TlsAddress("localhost", serving.port), certificates.context())


def test_client_certificates(
    open_stream: Open, loop: str, certificates: Certificates, others: Certificates
) -> None:
    tls = ServerTls(certificates.server(), None, others.authority)

    def talk(client: str | None) -> list[bytes]:
        context = certificates.context(client)
        stream = open_stream(TlsAddress("localhost", serving.port), context)
        try:
            stream.send(b"a\n")
            return receive_lines(stream, 1)
        finally:
            stream.close()

    with Serving(Echo, loop, tls.context) as serving:
        assert talk(others.client()) == [b"a"]
        with pytest.raises(TlsError, match=r"wants a client's certificate; .* HASHSERV_TLS_CERT"):
            talk(None)
        with pytest.raises(TlsError, match="name another in HASHSERV_TLS_CERT"):
            talk(certificates.client())
        with pytest.raises(TlsError, match=r"certificate expired.*name another"):
            talk(others.client(days=(-9, -1)))


def test_a_server_that_does_not_speak_tls(open_stream: Open) -> None:
    with (
        Serving(Talker) as serving,
        pytest.raises(TlsError, match=f":{serving.port} does not speak TLS: look at"),
    ):
        open_stream(TlsAddress("127.0.0.1", serving.port), ssl.create_default_context())


class Talker(Echo):
    """Answers whatever it hears with a line."""

    def data_received(self, _data: bytes) -> None:
        self.transport.write(b"What do you mean?\n")


def test_a_server_that_closes_during_the_handshake(open_stream: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_one() -> None:
            listening.accept()[0].close()

        closing = threading.Thread(target=close_one)
        closing.start()
        with pytest.raises(ConnectionError, match="closed the connection during the handsh") as e:
            open_stream(
                TlsAddress("127.0.0.1", listening.getsockname()[1]), ssl.create_default_context()
            )
        assert not isinstance(e.value, TlsError), "clients try that again"
        closing.join()


def test_a_server_that_is_silent(open_stream: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = TlsAddress("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(ConnectionError, match="Timed out"):
            open_stream(address, ssl.create_default_context(), 0.05)


def test_a_client_without_tls_is_no_trouble(loop: str, certificates: Certificates) -> None:
    with (
        Serving(Echo, loop, ServerTls(certificates.server()).context) as serving,
        socket.create_connection(("127.0.0.1", serving.port), SECONDS) as client,
    ):
        client.sendall(b"OEHASHEQUIV 1.1\n\n")
        while client.recv(4096):  # an alert
            pass


def test_old_versions_are_refused(certificates: Certificates) -> None:
    context = certificates.context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        Serving(Echo, tls=ServerTls(certificates.server()).context) as serving,
        socket.create_connection(("127.0.0.1", serving.port), SECONDS) as client,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        context.wrap_socket(client, server_hostname="localhost")


# Reloading.


def handshake(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """Connect, and see that a line comes back."""
    client = socket.create_connection(("127.0.0.1", port), SECONDS)
    try:
        client = context.wrap_socket(client, server_hostname="localhost", session=session)
        client.sendall(b"a\n")
        assert client.recv(9) == b"a\n"
    except BaseException:
        client.close()
        raise
    return client


def test_a_new_certificate_and_new_authorities(
    loop: str, tmp_path: Path, certificates: Certificates, others: Certificates
) -> None:
    files = [str(tmp_path / name) for name in ("crt", "key", "client-ca")]
    for file, source in zip(files, (*certificates.apart(), certificates.authority), strict=True):
        shutil.copy(source, file)
    tls = ServerTls(*files)
    before = certificates.context(certificates.client())
    after = others.context(others.client())
    certificate_only = others.context(certificates.client())
    with Serving(Echo, loop, tls.context) as serving:
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(serving.port, after)
        with handshake(serving.port, before) as lasting:
            new = (*others.apart(), others.authority)
            for file, source in zip(files, new, strict=True):
                shutil.copy(source, file)
            serving.call(tls.reload)
            with pytest.raises(ssl.SSLCertVerificationError):
                handshake(serving.port, before)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                handshake(serving.port, certificate_only)
            handshake(serving.port, after).close()
            lasting.sendall(b"b\n")
            assert lasting.recv(9) == b"b\n", "a connection that was there lives on"


def test_a_reload_that_fails_changes_nothing(tmp_path: Path, certificates: Certificates) -> None:
    file = tmp_path / "server.pem"
    shutil.copy(certificates.server(), file)
    tls = ServerTls(str(file))
    with Serving(Echo, tls=tls.context) as serving:
        for wrong in (certificates.server(days=(-9, -1)), os.devnull, certificates.authority):
            file.write_bytes(Path(wrong).read_bytes())
            with pytest.raises(SettingsError):
                serving.call(tls.reload)
            handshake(serving.port, certificates.context()).close()
        file.unlink()
        with pytest.raises(SettingsError):
            serving.call(tls.reload)
        handshake(serving.port, certificates.context()).close()


def test_client_certificates_need_a_tls_that_resumes_nothing_without_them(
    certificates: Certificates, others: Certificates
) -> None:
    tls = ServerTls(certificates.server(), None, others.authority)
    context = certificates.context(others.client())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        Serving(Echo, tls=tls.context) as serving,
        pytest.raises(ssl.SSLError, match="protocol version"),
    ):
        handshake(serving.port, context)


# The client's environment.


def test_what_the_environment_says(
    open_stream: Open,
    certificates: Certificates,
    others: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = ServerTls(certificates.server(), None, others.authority)
    certificate, key = others.apart()
    monkeypatch.setenv("HASHSERV_TLS_CA", certificates.authority)
    monkeypatch.setenv("HASHSERV_TLS_CERT", certificate)
    monkeypatch.setenv("HASHSERV_TLS_KEY", key)
    with Serving(Echo, tls=tls.context) as serving:
        stream = open_stream(TlsAddress("localhost", serving.port))
        stream.send(b"a\n")
        assert receive_lines(stream, 1) == [b"a"]


def test_without_a_variable_the_system_is_trusted() -> None:
    context = client_context({})
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats() == ssl.create_default_context().cert_store_stats()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CA": "/none"}, "HASHSERV_TLS_CA: .*'/none' can't be read"),
        ({"CA": os.devnull}, "HASHSERV_TLS_CA: .*'/dev/null' holds no certificate"),
        ({"CERT": "/none"}, "HASHSERV_TLS_CERT: .*'/none' can't be read"),
        ({"CERT": "CERTIFICATE"}, "HASHSERV_TLS_CERT: .*apart.crt' holds no private key"),
        ({"KEY": "KEY"}, "HASHSERV_TLS_KEY is set without HASHSERV_TLS_CERT"),
        ({"CERT": "CERTIFICATE", "KEY": "ENCRYPTED"}, "HASHSERV_TLS_CERT: .* is encrypted: take"),
    ],
)
def test_variables_that_name_the_wrong_files(
    certificates: Certificates, variables: dict[str, str], words: str
) -> None:
    certificate, key = certificates.apart()
    files = {"CERTIFICATE": certificate, "KEY": key, "ENCRYPTED": encrypted(certificates)[1]}
    environment = {
        f"HASHSERV_TLS_{name}": files.get(value, value) for name, value in variables.items()
    }
    with pytest.raises(AddressError, match=words):
        client_context(environment)
