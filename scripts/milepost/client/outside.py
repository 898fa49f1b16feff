"""HTTP to servers on other hosts, by a general library: with proxies, a site's own certificates, and compression.

Compute nodes often reach an API by nothing but a proxy. What is on this host, a tunnel's end included, is reached without
one and faster (`connections`).
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from milepost import __version__
from milepost.client.connections import ConnectError, HttpResponse, ServerDisconnectedError, address

CONNECT_S = 30.0  # in which a connection is there, or will not be


def on_this_host(url: str) -> bool:
    """Whether an address is on loopback.

    >>> on_this_host("http://127.0.0.1:8000/v1"), on_this_host("https://api.example.org/v1")
    (True, False)
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address, by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

    Raises:
        ConnectError: It is of a kind that is not spoken here.
    """
    if on_this_host(url):
        return None
    parts = urlsplit(url)
    named = getproxies()
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if proxy_bypass(host) or proxy_bypass(f"{host}:{port}") or _in_network(host, named.get("no")):
        return None
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ConnectError(
            f"the proxy that the environment names is {_shown(proxy)}, and only http:// and https:// ones are spoken here"
        )
    return proxy


def open_session(url: str, timeout_s: float, headers: dict[str, str] | None = None) -> aiohttp.ClientSession:
    """Open a session for requests to one server, on this host or another.

    Raises:
        ConnectError: The environment names a proxy that cannot be used.
    """
    return aiohttp.ClientSession(
        # Made here, not when the library was imported: SSL_CERT_FILE and SSL_CERT_DIR are read now.
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context()),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s)),
        headers={"User-Agent": f"milepost/{__version__}", **(headers or {})},
        proxy=proxy_of(url),
    )


class Outside:
    """Requests to one server on another host."""

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        """Describe the server; nothing is opened yet. The arguments are those of `Pool`."""
        if any(ord(sign) < 32 or ord(sign) == 127 for sign in key):
            raise ValueError("The key holds a line end or another control character, which no HTTP header can.")
        self.url = url
        self.timeout_s = timeout_s
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        }
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close all connections; requests under way end unanswered."""
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: bytes, timeout_s: float | None = None) -> HttpResponse:
        """Send JSON; redirections are not followed, so that the key goes nowhere else.

        Raises:
            TimeoutError: It took too long.
            ConnectError: The server, or the proxy before it, cannot be reached.
            ServerDisconnectedError: It did not answer, or not in HTTP.
        """
        if self._session is None:
            self._session = open_session(self.url, self.timeout_s, self._headers)
        limit = {} if timeout_s is None else {"timeout": aiohttp.ClientTimeout(total=timeout_s, sock_connect=timeout_s)}
        try:
            async with self._session.post(
                address(self.url, path),
                data=body,
                allow_redirects=False,
                **limit,  # type: ignore[arg-type]
            ) as response:
                content = await response.read()
                headers = {name.lower(): value for name, value in response.headers.items()}
                return HttpResponse(response.status, headers, content)
        except aiohttp.ConnectionTimeoutError:
            raise ConnectError(f"no connection to {self._where()} within {CONNECT_S:.0f} s") from None
        except (TimeoutError, ConnectError):
            raise
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            cause = getattr(error, "os_error", None) or error
            raise ConnectError(f"no connection to {self._where()}: {reason_of(cause)}") from None
        except aiohttp.ClientHttpProxyError as error:
            raise ConnectError(f"{self._where()} answers {error.status} {error.message}".rstrip()) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServerDisconnectedError(reason_of(error)) from None

    def _where(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2] + way_to(self.url)


def way_to(url: str) -> str:
    """A phrase for messages that names the proxy by which an address is reached; empty without a proxy."""
    try:
        proxy = proxy_of(url)
    except ConnectError:
        return ""
    return f" through the proxy {_shown(proxy)}" if proxy else ""


def reason_of(error: BaseException) -> str:
    """The message of an error, or its class's name if it has none."""
    if (
        isinstance(error, OSError)
        and error.errno is not None
        and error.errno > 0
        and not isinstance(error, ssl.SSLError)
    ):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _shown(proxy: str) -> str:
    """A proxy's address without the part before an @, which may hold a password."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _in_network(host: str, no_proxy: Any) -> bool:
    """Whether an entry of NO_PROXY is a network that holds the address; many sites write such ones: 10.0.0.0/8."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        for entry in str(no_proxy or "").split(","):
            with suppress(ValueError):
                if "/" in entry and address in ipaddress.ip_network(entry.strip(), strict=False):
                    return True
    return False
