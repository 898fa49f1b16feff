"""Servers on other hosts: through a real proxy on loopback, which leads every name to a server of the tests' own."""

import asyncio
import base64
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest
from test_client import GOOD, Server

from milepost.client import client as client_module
from milepost.client.client import Client, Reply, RequestError
from milepost.client.connections import ConnectError
from milepost.client.outside import Outside, on_this_host, proxy_of
from milepost.client.refusals import Fault

NAMES = [f"{name}_proxy" for name in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No proxy but those that a test names."""
    for name in [*NAMES, *map(str.upper, NAMES), "SSL_CERT_FILE"]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of a site's own, for names that no public authority would sign, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", folder / "key", "-out", folder / "pem", "-subj", "/CN=api.invalid",
         "-addext", "subjectAltName=DNS:api.invalid,DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


class Proxy:
    """An HTTP proxy: CONNECT and absolute addresses, whatever their host, lead to one port of loopback."""

    def __init__(self, to, wants=None):
        self.to, self.wants, self.asked = to, wants, []

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].split(b" ")
            self.asked.append((method.decode(), target.decode()))
            given = next(
                (line for line in head.split(b"\r\n") if line.lower().startswith(b"proxy-authorization: ")), b""
            )
            if self.wants and given.partition(b": ")[2] != b"Basic " + base64.b64encode(self.wants.encode()):
                writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n")
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Established\r\n\r\n")
            else:
                path = b"/" + target.split(b"/", 3)[3]
                far_writer.write(head.replace(target, path, 1).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()


@asynccontextmanager
async def tls_in_front(of, certificate):
    """A port that speaks TLS and passes on to another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "pem", certificate / "key")

    async def serve(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", of)
        await asyncio.gather(Proxy.pump(reader, far_writer), Proxy.pump(far_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def play(monkeypatch, url, variable, certificate=None, wants=None, given="", times=1, script=(200,)):
    """Ask by a proxy that an environment variable names: replies or errors, the proxy, and the server."""
    server = Server(*script)

    async def asked():
        async with server.running() as address:
            port = int(address.rsplit(":", 1)[1].split("/")[0])
            async with tls_in_front(port, certificate) if certificate else given_port(port) as to:
                proxy = Proxy(to, wants)
                async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as listening:
                    at = listening.sockets[0].getsockname()[1]
                    monkeypatch.setenv(variable, f"http://{given}127.0.0.1:{at}")
                    async with Client(url, "sk-key", retries=0, timeout_s=5) as client:
                        calls = [client.post("/chat/completions", {"n": n}) for n in range(times)]
                        return await asyncio.gather(*calls, return_exceptions=True), proxy

    replies, proxy = asyncio.run(asked())
    return replies, proxy, server


@asynccontextmanager
async def given_port(port):
    yield port


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_server_behind_a_proxy_and_a_certificate_of_the_sites_own(monkeypatch, certificate, variable):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "pem"))
    replies, proxy, server = play(monkeypatch, "https://api.invalid/v1", variable, certificate, times=3)
    assert [reply.body for reply in replies] == [GOOD] * 3
    assert set(proxy.asked) == {("CONNECT", "api.invalid:443")}
    assert server.headers[0]["Authorization"] == "Bearer sk-key"
    assert "Proxy-Authorization" not in server.headers[0]


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(monkeypatch, certificate):
    (error,), _, server = play(monkeypatch, "https://api.invalid/v1", "HTTPS_PROXY", certificate)
    assert (error.error["type"], server.bodies) == ("connection", [])
    assert "certificate" in str(error)
    assert "through the proxy http://127.0.0.1:" in str(error)


def test_plain_http_goes_by_the_proxy_as_well(monkeypatch):
    replies, proxy, server = play(monkeypatch, "http://api.invalid:8000/v1", "http_proxy", times=2)
    assert [reply.body for reply in replies] == [GOOD] * 2
    assert set(proxy.asked) == {("POST", "http://api.invalid:8000/v1/chat/completions")}
    assert server.paths == ["/v1/chat/completions"] * 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password(monkeypatch, certificate, scheme):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "pem"))
    tls, url = (certificate if scheme == "https" else None), f"{scheme}://api.invalid/v1"
    (reply,), _, _ = play(monkeypatch, url, "ALL_PROXY", tls, wants="me:secret", given="me:secret@")
    assert isinstance(reply, Reply)
    (error,), _, server = play(monkeypatch, url, "ALL_PROXY", tls, wants="me:secret", given="me:wrong@")
    assert isinstance(error, RequestError)
    assert "407" in str(error)
    assert "wrong" not in str(error)
    assert server.bodies == []


@pytest.mark.parametrize("no_proxy", ["api.invalid", ".invalid", "other,api.invalid", "*", "api.invalid:443"])
def test_no_proxy_is_honoured(monkeypatch, certificate, no_proxy):
    monkeypatch.setenv("NO_PROXY", no_proxy)
    (error,), proxy, _ = play(monkeypatch, "https://api.invalid/v1", "HTTPS_PROXY", certificate)
    assert proxy.asked == []
    assert (error.error["type"], error.fault) == ("connection", Fault.PASSING), "no name server knows it"


def test_networks_in_no_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "proxy.site:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,10.0.0.0/8")
    assert proxy_of("http://10.3.4.5:8000/v1") is None
    assert proxy_of("http://11.3.4.5:8000/v1") == "http://proxy.site:3128"


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")

    async def asked():
        async with Client("https://api.invalid/v1", "k", retries=0) as client:
            await client.post("/x", {})

    with pytest.raises(RequestError, match=r"through the proxy http://127\.0\.0\.1:9: .*refused") as error:
        asyncio.run(asked())
    assert "secret" not in str(error.value)


def test_a_kind_of_proxy_that_is_not_spoken_is_said(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy:1080")
    with pytest.raises(ConnectError, match=r"socks5://proxy:1080, and only http:// and https://"):
        proxy_of("https://api.invalid/v1")


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True), ("http://localhost:1/v1", True), ("http://[::1]:1/v1", True),
        ("http://127.9.9.9/v1", True), ("https://api.invalid/v1", False), ("http://10.0.0.1/v1", False),
        ("http://localhost.evil.org/v1", False), ("", False), ("http://[", False),
    ],
)  # fmt: skip
def test_what_is_on_this_host_is_asked_without_a_proxy(monkeypatch, url, here):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert on_this_host(url) is here
    if here:
        assert proxy_of(url) is None


def test_a_server_outside_without_a_proxy(monkeypatch, certificate):
    monkeypatch.setattr(client_module, "on_this_host", lambda url: False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "pem"))
    server = Server({"status": 503, "headers": {"Retry-After": "0.1"}}, 200)

    async def asked():
        async with server.running() as address:
            port = int(address.rsplit(":", 1)[1].split("/")[0])
            async with (
                tls_in_front(port, certificate) as to,
                Client(f"https://localhost:{to}/v1", "k", retries=1, pause_s=0.01) as client,
            ):
                assert isinstance(client._transport, Outside)
                return await client.post("/x", {})

    assert asyncio.run(asked()).body == GOOD


@pytest.mark.parametrize("key", ["two\nlines", "nul\0"])
def test_a_key_that_would_be_another_header_is_refused(key):
    with pytest.raises(ValueError, match="line end"):
        Outside("https://api.invalid/v1", key, 1.0)
