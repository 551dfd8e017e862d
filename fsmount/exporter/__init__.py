"""Serves the file `metrics` of a mount over HTTP, as an ordinary client of the mount.

`server.py` accepts connections and bounds their number, `connection.py` speaks HTTP on one of them, `readings.py` reads
the file, `formats.py` knows the formats that a client can ask for, and `address.py` the addresses to listen on.

No text is kept between requests, so the mount may go and come back.
"""

from fsmount.exporter.address import Address, parse_address, told
from fsmount.exporter.server import export

__all__ = ["Address", "export", "parse_address", "told"]
