"""The figures of a part as text and as a record, in the order of the part: ratios first."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from .measure import Figure, Note, number


def line(entry: Figure | Note) -> str:
    if isinstance(entry, Note):
        return f"  note: {entry.text}"
    spread = f"{number(entry.spread.low)} .. {number(entry.spread.high)}"
    verdict = {None: "", True: "reached", False: "NOT reached"}[entry.reached]
    target = "" if entry.target is None else str(entry.target)
    return f"  {entry.what:<62} {number(entry.spread.median):>9} {entry.unit:<2} {spread:>18}  {target:>10}  {verdict}"


def text(part: str, explanation: str, rounds: int, entries: Sequence[Figure | Note], seconds: float) -> str:
    return "\n".join(
        [
            f"\n{part}: {rounds} rounds, {seconds:.0f} s",
            textwrap.indent(explanation.strip(), "  "),
            "",
            f"  {'':<62} {'median':>9}    {'quartiles':>18}  {'target':>10}".rstrip(),
            *(line(entry).rstrip() for entry in entries),
        ]
    )


def record(rounds: int, entries: Sequence[Figure | Note]) -> dict[str, object]:
    return {
        "rounds": rounds,
        "figures": [_figure(entry) for entry in entries if isinstance(entry, Figure)],
        "notes": [entry.text for entry in entries if isinstance(entry, Note)],
    }


def _figure(figure: Figure) -> dict[str, object]:
    return {
        "what": figure.what,
        "unit": figure.unit,
        "median": figure.spread.median,
        "low": figure.spread.low,
        "high": figure.spread.high,
        "target": None if figure.target is None else str(figure.target),
        "reached": figure.reached,
        "at": None if figure.at is None else asdict(figure.at),
    }
