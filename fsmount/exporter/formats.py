"""The formats in which a client can have the metrics, and the choice between them.

The file is OpenMetrics text.  A client that does not ask for OpenMetrics gets Prometheus' older text format, in which
the help of a counter belongs to the name with `_total`.  The library for metrics translates one into the other.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_OPENMETRICS = "application/openmetrics-text"
_GZIP_LEVEL = 1  # metrics repeat themselves: the best level makes them no smaller than the fastest


class Format(NamedTuple):
    """What a client gets."""

    openmetrics: bool
    gzip: bool

    @classmethod
    def asked_for(cls, accept: str, accept_encoding: str) -> Format:
        """What suits a request with these headers; plain text if nothing else is asked for."""
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
        """The text, made once for all who ask.  ValueError if it is not OpenMetrics text."""
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


class _Parsed:
    """The families of an OpenMetrics text, as the library asks for them."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families

        return text_string_to_metric_families(self._text.decode())  # type: ignore[no-any-return]


def _plain(text: bytes) -> bytes:
    from prometheus_client.exposition import generate_latest

    try:
        return generate_latest(_Parsed(text))
    except (LookupError, TypeError, AttributeError) as error:  # what the parser has for some texts
        raise ValueError(f"{type(error).__name__}: {error}") from None
