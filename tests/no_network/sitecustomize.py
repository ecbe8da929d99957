"""Closes the network to this Python: only unix sockets and loopback stay.

tests/conftest.py puts this folder on PYTHONPATH, so that commands which tests start load it.
"""

import ipaddress
import socket
import sys


def _check(event: str, arguments: tuple) -> None:
    if not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        opened, address = arguments
        if opened.family == getattr(socket, "AF_UNIX", None) or address is None:
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        raise PermissionError(f"the tests run without a network: {event} to {host!r} refused")


def _is_here(host) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host if isinstance(host, str) else host.decode()).is_loopback
    except ValueError:
        return False


sys.addaudithook(_check)
