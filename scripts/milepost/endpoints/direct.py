"""`reach: direct`: a port at a node's address through which nobody gets who does not hold the server's certificate.

The certificate is made for one start of a server, and stands with its key in the server's record, which only the user can
read. Each end shows it and accepts nothing else (TLS 1.3), so a stranger who connects gets no connection, one who
listens at the port in the server's place is told nothing, and one who passes on what comes reads nothing of it.

The port is this process's own, from the moment at which the kernel chose it to the end; vLLM stays at its socket.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from milepost.client.proof import Place, Streams

HANDSHAKE_S = 10.0


def new_certificate() -> str:
    """A private key and a certificate that it has signed itself, as PEM."""
    # Here: most steps that import this module never make one.
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "milepost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        # The hosts' clocks may differ; how long it is worth anything, the server's life decides.
        .not_valid_before(now - timedelta(days=7))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return (secret + certificate.public_bytes(serialization.Encoding.PEM)).decode()


def context(pem: str, folder: Path, *, server: bool) -> ssl.SSLContext:
    """What one end of a connection shows and accepts: this certificate, and nothing else.

    Args:
        pem: The key and the certificate.
        folder: Only the user can enter it; the key lies there for a moment, as OpenSSL reads keys from files.
        server: Which end.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # who it is says the certificate alone
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=pem[pem.index("-----BEGIN CERTIFICATE") :])
    file = folder / "certificate"
    file.touch(mode=0o600)
    try:
        file.write_text(pem)
        made.load_cert_chain(file)
    finally:
        file.unlink()
    return made


class Door:
    """A port of an address of this host that leads to a server's socket. Use it as an asynchronous context manager."""

    def __init__(self, address: str, place: Place, pem: str, folder: Path) -> None:
        """Describe it; nothing is opened yet.

        Args:
            address: This host's.
            place: Where the server listens.
            pem: What both ends show.
            folder: The server's own, which only the user can enter.
        """
        self._address, self._place = address, place
        self._context = context(pem, folder, server=True)
        self._server: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        """Open the port, which the kernel chooses; returns it."""
        self._server = await asyncio.start_server(
            self._carry, self._address, 0, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the port and all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._carried:
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection of whoever has shown the certificate."""
        task = asyncio.current_task()
        assert task is not None
        self._carried.add(task)
        try:
            far = await self._place.connect()
            await carry((reader, writer), far)
        except (OSError, asyncio.CancelledError):
            writer.close()
        finally:
            self._carried.discard(task)


async def carry(near: Streams, far: Streams) -> None:
    """Carry a connection both ways until it ends, and close both of its parts."""
    try:
        with suppress(OSError, TimeoutError, ExceptionGroup, asyncio.CancelledError):
            # Whoever asks notices that the connection ends, and asks again.
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(near[0], far[1]))
                both.create_task(_pump(far[0], near[1]))
    finally:
        near[1].close()
        far[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()  # TLS knows no half of a connection
