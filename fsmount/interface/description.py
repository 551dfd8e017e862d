"""How a group and a counter show themselves: one line, and a table of HTML for notebooks.

To show an object never fails: where the values cannot be read, the reason takes their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from fsmount.errors import GroupRemoved
from fsmount.quantities import UNLIMITED

#: The columns of the table, keys of R.stat.
_COLUMNS = ("usage", "limit", "max_usage", "failcnt")


class Readable(Protocol):
    """A counter that can be shown."""

    @property
    def resource(self) -> str: ...
    def stat(self) -> Mapping[str, int]: ...


def counters_line(counters: Iterable[Readable]) -> str:
    """Usage and limit of each counter in a few words, or why they cannot be read."""
    try:
        shown = [(counter.resource, counter.stat()) for counter in counters]
    except OSError as error:
        return _reason(error)
    return ", ".join(f"{resource} usage={stat['usage']} limit={_number(stat['limit'])}" for resource, stat in shown)


def counters_table(path: str, counters: Iterable[Readable]) -> str:
    """A table of HTML with a row for each counter, or why they cannot be read."""
    import html  # here, because only notebooks need it

    title = f"<caption>{html.escape(path)}</caption>"
    try:
        shown = [(counter.resource, counter.stat()) for counter in counters]
    except OSError as error:
        return f"<table>{title}<tr><td>{html.escape(_reason(error))}</td></tr></table>"
    heads = "".join(f"<th>{column}</th>" for column in ("resource", *_COLUMNS))
    rows = (
        f"<tr><th>{html.escape(resource)}</th>"
        + "".join(f"<td>{_number(stat[column])}</td>" for column in _COLUMNS)
        + "</tr>"
        for resource, stat in shown
    )
    return f"<table>{title}<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _number(amount: int) -> str:
    return "max" if amount == UNLIMITED else str(amount)


def _reason(error: OSError) -> str:
    return "removed" if isinstance(error, GroupRemoved) else str(error.strerror)
