"""Addresses that the exporter listens on."""

from __future__ import annotations

import ipaddress
import socket

Address = tuple[str, int]

#: The connections that the kernel queues before the exporter accepts them.
_BACKLOG = 128


def parse_address(text: str) -> Address:
    """Parses HOST:PORT; an IPv6 address is in brackets.  ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an IPv6 address is in brackets, such as [::1]:9744")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("an address is HOST:PORT, such as localhost:9744")
    return host, int(port)


def address_text(address: tuple[object, ...]) -> str:
    """HOST:PORT as in a URL."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def listen(address: Address) -> socket.socket:
    """A listening socket.  OSError: it names the address."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # [::] includes all IPv4 addresses
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        # create_server() adds the address to the reason, in its own format
        reason = (error.strerror or str(error)).partition(" (while attempting to bind")[0]
        raise OSError(error.errno, reason[:1].upper() + reason[1:], address_text(address)) from None
