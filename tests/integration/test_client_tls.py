"""Both clients over TLS. The server of the wheel has none, so a process-local end of TLS stands before it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from online_support import make_view

from feature_platform.domain.types import ColumnType
from feature_platform.errors import ConfigurationError
from feature_platform.online import FeatureClient
from feature_platform.online import catalog as catalogs
from feature_platform.online.aio import AsyncFeatureClient
from feature_platform.online.catalog import document_of
from feature_platform.online.codec import Layout
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress

NOW = datetime(2026, 3, 10, tzinfo=UTC)
VIEW = make_view("delays", features={"note": ColumnType.VARCHAR})
NOTE = "x" * 100_000  # longer than a record of TLS


def make_certificate(directory: Path) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "valkey of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return path


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@pytest.fixture
def url(valkey_url: str, tmp_path: Path) -> Iterator[str]:
    """An address with TLS that leads to the session's server."""
    address = ValkeyAddress.parse(valkey_url)
    with Connection(address, 5.0) as connection:
        catalogs.publish(connection, [document_of(VIEW, latest=True)], ())
        value = Layout.of((c.name, c.type) for c in VIEW.features).encode(1, NOW, {"note": NOTE})
        for i in range(5):
            connection.call("SET", f"delays@1:{{c{i}}}", value)
    path = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                client = context.wrap_socket(plain, server_side=True)
            except OSError:  # who does not trust us hangs up
                plain.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(address.socket_path)
            sockets.extend((client, server))
            for ends in ((client, server), (server, client)):
                threads.append(threading.Thread(target=pump, args=ends))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=serve, args=(listening,))
        accepting.start()
        yield f"valkeys://127.0.0.1:{listening.getsockname()[1]}/0?ssl_ca_certs={path}"
        listening.shutdown(socket.SHUT_RDWR)
    accepting.join()
    for one in sockets:
        with suppress(OSError):  # the other side has gone
            one.shutdown(socket.SHUT_RDWR)  # closing does not wake who waits in recv
    for thread in threads:
        thread.join()
    for one in sockets:
        one.close()


def test_reads_over_tls(url: str) -> None:
    entities = {"carrier": [f"c{i}" for i in range(5)]}
    with FeatureClient.connect(url, timeout_seconds=30) as client:
        for _ in range(3):
            assert client.get_online_features("delays", entities).to_columns()["note"] == [NOTE] * 5

    async def read() -> list[str]:
        async with await AsyncFeatureClient.connect(url, timeout_seconds=30) as client:
            return (await client.get_online_features("delays", entities)).to_columns()["note"]

    assert asyncio.run(read()) == [NOTE] * 5


def test_a_certificate_that_is_not_trusted(url: str, tmp_path: Path) -> None:
    unknown = url.partition("?")[0]
    with pytest.raises(ConfigurationError, match=r"not trusted[\s\S]*ssl_ca_certs"):
        FeatureClient.connect(unknown, timeout_seconds=30)
    with pytest.raises(ConfigurationError, match=r"not trusted[\s\S]*ssl_ca_certs"):
        asyncio.run(AsyncFeatureClient.connect(unknown, timeout_seconds=30))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FeatureClient.connect(f"{unknown}?ssl_ca_certs={tmp_path / 'nothing.pem'}")
