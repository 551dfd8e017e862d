"""Metrics over HTTP: serves the file `metrics` of a mount, as an ordinary client of that mount.

It is a process of its own, not a part of the daemon: it runs with fewer rights, its load cannot delay requests for
files, and it goes on when the daemon ends and another one starts.

`server.py` accepts connections and bounds their number, `connection.py` speaks HTTP on one of them, `readings.py` reads
the file, `formats.py` converts it to the format that a client asks for, and `address.py` parses addresses.
"""

from fsmount.exporter.address import Address, address_text, parse_address
from fsmount.exporter.server import export

__all__ = ["Address", "address_text", "export", "parse_address"]
