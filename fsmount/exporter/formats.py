"""The formats in which a client can have the metrics, and the choice between them.

The file is OpenMetrics text.  A client that does not ask for OpenMetrics gets Prometheus' older text format, in which
the help of a counter belongs to the name with `_total`.  The library for metrics could parse one and write the other,
at ten seconds for the largest text; the lines that differ are few, and are translated here in a fraction of that.
"""

from __future__ import annotations

import gzip
import re
import threading
from typing import NamedTuple

#: The last line of every whole OpenMetrics text.
END = b"# EOF\n"

_OPENMETRICS = "application/openmetrics-text"
_SAID = re.compile(rb"^# (HELP|TYPE|UNIT) (\S+)(.*)\n", re.MULTILINE)
_COUNTER = re.compile(rb"^# TYPE (\S+) counter$", re.MULTILINE)
_GZIP_LEVEL = 1  # metrics repeat themselves: the best level makes them no smaller than the fastest


class Format(NamedTuple):
    """An answer to a client."""

    openmetrics: bool
    gzip: bool

    @classmethod
    def asked_for(cls, accept: str, accept_encoding: str) -> Format:
        """The format that suits a request with these headers; plain text by default."""
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
    """The names in such a header, each with its `q`.  OpenMetrics below 1.0.0 is a format that nobody writes here."""
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
    """One reading of the file, in each format that was asked for.  Several threads may ask."""

    def __init__(self, text: bytes) -> None:
        self._made = {Format(openmetrics=True, gzip=False): text}
        self._lock = threading.Lock()

    def encoded(self, form: Format) -> bytes:
        """The text, made once for all who ask."""
        with self._lock:
            return self._encoded(form)

    def _encoded(self, form: Format) -> bytes:
        if form not in self._made:
            if form.gzip:
                whole = self._encoded(form._replace(gzip=False))
                self._made[form] = gzip.compress(whole, _GZIP_LEVEL, mtime=0)
            else:
                self._made[form] = _plain(self._made[Format(openmetrics=True, gzip=False)])
        return self._made[form]


def _plain(text: bytes) -> bytes:
    """In the older format samples are the same; what is said of a counter names it with `_total`."""
    counters = set(_COUNTER.findall(text))

    def translated(found: re.Match[bytes]) -> bytes:
        keyword, name, rest = found.groups()
        if keyword == b"UNIT":
            return b""
        return b"# %b %b%b%b\n" % (keyword, name, b"_total" if name in counters else b"", rest)

    return _SAID.sub(translated, text.removesuffix(END))
