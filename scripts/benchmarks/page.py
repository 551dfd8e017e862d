"""The page fsmount/docs/bench.md: pictures and tables of one run, and what they were measured on and by."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .measure import Figure, Table
from .pictures import Picture, draw

BEGINNING = """\
# What fsmount costs

Measured beside other designs for the same thing, and beside what one would take instead. This page and its pictures are
what a run of the bench makes:

```sh
{command}
```

This one ran on {machine}.{caution}

A time is the median over the rounds of the run, in which all that is compared takes turns; the bands and bars around it
are the quartiles. A ratio is the median of each round's ratio. A charge and its uncharge are timed as a pair.
"""

CAUTION = " It was a `--quick` one, which shows that the bench works and not how fast anything is."

# What a reader must know that is not in the picture.
EXPLANATIONS = {
    "depth": "The designs are written in C and compiled alike (`scripts/models`); their charges meet in the parents.",
    "processes": "With more processes than processors, who holds a lock is at times not running.",
    "headroom": "All processes together hold so much less than the limit. At 0 every charge is refused.",
    "groups": "What asks for one group costs the same in any tree; a sum of all costs as much as cells are open.",
    "peers": "The same loop in Python around each; each is shown to keep both limits before it is timed.",
}

TABLES = {
    "engine": "Designs in C",
    "peers": "What one would take instead, from Python",
}


def write(
    directory: Path,
    figures: Sequence[Figure],
    tables: Mapping[str, Table],
    machine: Mapping[str, str],
    command: str,
    quick: bool,
) -> None:
    """Draws the pictures into a directory that is there, and writes the page that shows them, DIRECTORY.md."""
    on = f"{machine['processor']}, {machine['kernel']}, Python {machine['python']}"
    parts = [BEGINNING.format(command=command, machine=on, caution=CAUTION if quick else "")]
    parts += [_shown(picture, directory.name) for picture in draw(directory, figures)]
    parts += [f"## {TABLES[part]}\n\n{_markdown(table)}" for part, table in tables.items()]
    directory.with_name(f"{directory.name}.md").write_text("\n".join(parts))


def _shown(picture: Picture, directory: str) -> str:
    image = f"![{picture.title}: {picture.under}]({directory}/{picture.plot}.svg)"
    return f"## {picture.title}\n\n{image}\n\n{EXPLANATIONS[picture.plot]}\n"


def _markdown(table: Table) -> str:
    rule = ["---", *["--:"] * (len(table.head) - 2), "---"]
    return "".join(f"| {' | '.join(row)} |\n" for row in (table.head, rule, *table.rows))
