"""Starts a program of another environment so that neither its arguments nor its port are of use to others on the host.

Usage: launch.py TARGET [ARGUMENT...], by the Python that has TARGET: a module that is run as `python -m` would, or a
command of one of its packages. The one argument `@FILE` stands for a list of arguments in JSON: the process list, which
everybody can read, then shows a path that only the user can enter.

In MILEPOST_PORT, the port of loopback that the program is going to listen at: our own process has bound it (`hold`) and
never lets go, so that nobody else can take it, neither before the program does nor after its end. The program shares it
(SO_REUSEPORT, which the kernel grants to the same user only). And it takes no connection there but this user's. Where
MILEPOST_PORT is the name of a variable, from which the program reads its port, this process holds one itself.

This file imports nothing of Milepost. Processes that the program starts by multiprocessing run it as well.
"""

import errno
import importlib.metadata
import json
import os
import runpy
import socket
import sys
from typing import Any

HELD = "MILEPOST_PORT"
HOLDING: list[socket.socket] = []


def hold(address: str = "127.0.0.1") -> tuple[int, list[socket.socket]]:
    """Bind a port of loopback for a program that shares it; returns the port and what holds it until it is closed.

    By both names of loopback, where there are two: a client may take `localhost` for the other one.
    """
    while True:
        held = [_shared(socket.AF_INET, address, 0)]
        port = int(held[0].getsockname()[1])
        try:
            held.append(_shared(socket.AF_INET6, "::1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                held[0].close()
                continue
        return port, held


def _shared(family: int, address: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


def share(port: int) -> None:
    """Have this process bind a port that is held for it, and take no connection there but those of its own user."""
    bind, accept = socket.socket.bind, socket.socket.accept

    def bind_shared(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[1] == port:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bind(self, address)

    def accept_own(self: socket.socket) -> tuple[socket.socket, Any]:
        connection, peer = accept(self)
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if internet and self.getsockname()[1] == port and not is_own(peer, connection.getsockname()):
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "the other end is another user's")
        return connection, peer

    socket.socket.bind = bind_shared  # type: ignore[assignment, method-assign]
    socket.socket.accept = accept_own  # type: ignore[method-assign]


def is_own(far: Any, near: Any) -> bool:
    """Whether the far end of a connection within this host is a socket of this user, as the kernel's tables say."""
    begins, ends = _as_listed(far), _as_listed(near)
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                lines = [line.split() for line in file if begins in line]
        except OSError:
            continue
        for fields in lines:
            # In the table of IPv6, an address of IPv4 stands behind a prefix.
            if fields[1].endswith(begins) and fields[2].endswith(ends) and int(fields[7]) == os.geteuid():
                return True
    return False


def _as_listed(end: Any) -> str:
    """An address and port as the kernel lists them.

    >>> _as_listed(("127.0.0.1", 8000)).endswith(":1F40"), len(_as_listed(("::1", 8000)))
    (True, 37)
    """
    packed = socket.inet_pton(socket.AF_INET6 if ":" in end[0] else socket.AF_INET, end[0])
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + f":{end[1]:04X}"


def main() -> None:
    """Run the program that the arguments name."""
    target, *arguments = sys.argv[1:]
    if len(arguments) == 1 and arguments[0].startswith("@"):
        with open(arguments[0][1:], encoding="utf-8") as file:
            arguments = json.load(file)
    sys.argv = [target, *arguments]
    if os.environ.get(HELD, "0").isidentifier():
        port, held = hold()
        HOLDING.extend(held)
        os.environ |= {os.environ[HELD]: str(port), HELD: str(port)}
        share(port)
    for command in importlib.metadata.entry_points(group="console_scripts", name=target):
        sys.exit(command.load()())
    runpy.run_module(target, run_name="__main__", alter_sys=True)


# Beside this file lie modules whose names would hide others.
if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
    del sys.path[0]
if os.environ.get(HELD, "").isdecimal():
    share(int(os.environ[HELD]))
if __name__ == "__main__":
    main()
