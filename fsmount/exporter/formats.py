"""The formats of the metrics, and the choice between them.

The file is OpenMetrics text.  A client that does not ask for OpenMetrics gets Prometheus' older text format, in which
HELP and TYPE of a counter use the name with `_total`.  The library prometheus_client could parse one format and write
the other, but takes ten seconds for the largest text.  Only a few lines differ, and this module translates them.
"""

from __future__ import annotations

import gzip
import re
import threading
from typing import NamedTuple

#: The last line of a complete OpenMetrics text.
END = b"# EOF\n"

_OPENMETRICS = "application/openmetrics-text"
_METADATA = re.compile(rb"^# (HELP|TYPE|UNIT) (\S+)(.*)\n", re.MULTILINE)
_COUNTER = re.compile(rb"^# TYPE (\S+) counter$", re.MULTILINE)
_GZIP_LEVEL = 1  # metrics are so repetitive that higher levels save nothing


class Format(NamedTuple):
    """The format of an answer."""

    openmetrics: bool
    gzip: bool

    @classmethod
    def asked_for(cls, accept: str, accept_encoding: str) -> Format:
        """The format for a request with these headers; plain text by default."""
        types, codings = _qualities(accept), _qualities(accept_encoding)
        plain = next((types[name] for name in ("text/plain", "text/*", "*/*") if name in types), 0.0)
        openmetrics = types.get(_OPENMETRICS, 0.0)
        return cls(openmetrics > 0 and openmetrics >= plain, codings.get("gzip", codings.get("*", 0.0)) > 0)

    @property
    def headers(self) -> list[tuple[str, str]]:
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
        from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

        found = [("Content-Type", CONTENT_TYPE_LATEST if self.openmetrics else CONTENT_TYPE_PLAIN_0_0_4)]
        if self.gzip:
            found.append(("Content-Encoding", "gzip"))
        return [*found, ("Vary", "Accept, Accept-Encoding")]


def _qualities(header: str) -> dict[str, float]:
    """The names in an Accept header, each with its `q`.  Omits OpenMetrics below 1.0.0, which differs."""
    found: dict[str, float] = {}
    for part in header.split(","):
        name, *words = (word.strip().lower() for word in part.split(";"))
        parameters = dict(word.split("=", 1) for word in words if "=" in word)
        if name == _OPENMETRICS and not parameters.get("version", "1").strip('"').startswith("1"):
            continue
        try:
            quality = float(parameters.get("q", 1))
        except ValueError:
            quality = 0.0
        found[name] = max(quality, found.get(name, 0.0))
    return found


class Metrics:
    """One reading of the file, in each requested format.  Thread-safe."""

    def __init__(self, text: bytes) -> None:
        self._made = {Format(openmetrics=True, gzip=False): text}
        self._lock = threading.Lock()

    def encoded(self, form: Format) -> bytes:
        """The text, made at the first request for the format."""
        with self._lock:
            return self._encoded(form)

    def _encoded(self, form: Format) -> bytes:
        if form not in self._made:
            if form.gzip:
                plain = self._encoded(form._replace(gzip=False))
                self._made[form] = gzip.compress(plain, _GZIP_LEVEL, mtime=0)
            else:
                self._made[form] = _plain(self._made[Format(openmetrics=True, gzip=False)])
        return self._made[form]


def _plain(text: bytes) -> bytes:
    """The older format: the same samples; HELP and TYPE name a counter with `_total`."""
    counters = set(_COUNTER.findall(text))

    def translated(found: re.Match[bytes]) -> bytes:
        keyword, name, rest = found.groups()
        if keyword == b"UNIT":
            return b""
        return b"# %b %b%b%b\n" % (keyword, name, b"_total" if name in counters else b"", rest)

    return _METADATA.sub(translated, text.removesuffix(END))
