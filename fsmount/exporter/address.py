"""The address that the exporter listens on."""

from __future__ import annotations

import ipaddress
import socket

Address = tuple[str, int]

#: How many connections the kernel keeps for the exporter before they are accepted.
_BACKLOG = 128


def parse_address(text: str) -> Address:
    """HOST:PORT, where an address of IPv6 is in brackets.  ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an address of IPv6 is in brackets")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("an address is HOST:PORT")
    return host, int(port)


def told(address: tuple[object, ...]) -> str:
    """HOST:PORT as a URL has it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def listen(address: Address) -> socket.socket:
    """A socket that listens there.  OSError, which names the address."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # [::] is every address, of IPv4 too
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        # create_server() writes the address into the reason, in a form of its own
        reason = (error.strerror or str(error)).partition(" (while attempting to bind")[0]
        raise OSError(error.errno, reason[:1].upper() + reason[1:], told(address)) from None
