"""The page fsmount/docs/bench.md: the tables of one run, the machine that it ran on, and the command."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .measure import Figure, Table
from .plots import OURS, PLOTS, SECONDS, Placed, Plot, duration, placed, series_of

BEGINNING = """\
# The costs of fsmount

`scripts/bench` measures fsmount beside other designs and beside the tools that people use today.
This page holds one run:

```sh
{command}
```

The machine was {machine}.{caution} `scripts/bench --plot DIRECTORY` draws the same figures as pictures.

- The compared cases take turns in each round. A time is the median over all rounds.
- A ratio is the median of the ratios within each round.
- A charge and its uncharge are timed as a pair.
"""

CAUTION = " The run was a `--quick` one: it shows that the bench works, not how fast anything is."

EXPLANATIONS = {
    "depth": "The designs are C programs, compiled with the same options (`scripts/benchmarks/models`). "
    "All processes charge the same parents.",
    "processes": "With more processes than processors, the owner of a lock sometimes waits for a processor.",
    "headroom": "The headroom is the distance of the usage to the limit. At 0 every charge is refused.",
    "groups": "An operation on one group costs the same in any tree. A sum over all groups costs as much as there are "
    "open cells.",
    "peers": "Each peer runs the same loop in Python. The bench first checks that the peer keeps both limits.",
}

TABLES = {"engine": "Designs in C", "peers": "Peers, from Python"}


def write(
    path: Path,
    figures: Sequence[Figure],
    tables: Mapping[str, Table],
    machine: Mapping[str, str],
    command: str,
    quick: bool,
) -> None:
    """Writes the page of a run: a table for each plot that has points, and the table of each part that has one."""
    on = f"{machine['processor']}, {machine['kernel']}, Python {machine['python']}"
    parts = [BEGINNING.format(command=command, machine=on, caution=CAUTION if quick else "")]
    parts += [_section(plot, points) for plot in PLOTS if (points := placed(plot, figures))]
    parts += [f"## {TABLES[part]}\n\n{_markdown(table)}" for part, table in tables.items()]
    path.write_text("\n".join(parts))


def _section(plot: Plot, points: Sequence[Placed]) -> str:
    """The points of a plot as a table: a row for each series, a column for each x."""
    xs = sorted({point.x for point, _ in points})
    rows = []
    for name, line in sorted(series_of(points).items(), key=lambda row: not row[0].startswith(OURS)):
        times = {point.x: duration(figure.spread.median * SECONDS[figure.unit]) for point, figure in line}
        rows.append((name.replace("\n", " "), *(times.get(x, "") for x in xs)))
    table = Table((plot.x, *(f"{x:,.0f}" for x in xs)), tuple(rows))
    return f"## {plot.title}\n\nMeasured: {plot.under}. {EXPLANATIONS[plot.name]}\n\n{_markdown(table, last='--:')}"


def _markdown(table: Table, last: str = "---") -> str:
    rule = ["---", *["--:"] * (len(table.head) - 2), last]
    return "".join(f"| {' | '.join(row)} |\n" for row in (table.head, rule, *table.rows))
