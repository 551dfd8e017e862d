"""The command scripts/bench: runs the named parts and prints their figures, ratios first."""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import click

from . import page, report
from .measure import Figure, Note, Settings, Table, Tick

PARTS = ("engine", "python", "files", "scale", "peers", "start", "waiting", "responsive")

# Above this load for each processor, other work disturbs too many rounds.
BUSY = 0.5


def machine() -> dict[str, str]:
    """The machine, the kernel and the Python of the figures."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": f"{os.cpu_count()} x {model}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


@click.command(name="bench")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS), metavar="[PART]...")
@click.option(
    "--quick", is_flag=True, help="Few short rounds: this shows that the bench works, not how fast fsmount is."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=2),
    help="The number of rounds (default: 3 with --quick, otherwise a number for each part).",
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures here."
)
@click.option(
    "--page",
    "page_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures as a page of tables: fsmount/docs/bench.md is one.",
)
@click.option(
    "--plot",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also draw the figures as pictures into this directory.",
)
def bench(
    parts: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    json_path: Path | None,
    page_path: Path | None,
    plot: Path | None,
) -> None:
    """Measure fsmount beside the designs and tools that it is compared with.

    \b
    PART is one of these; without a PART the bench measures all:
      engine      the C engine beside other designs
      python      charging from Python
      files       the files of a mount
      scale       trees with many groups, holders and cells
      peers       charging from Python beside the usual tools
      start       import and attach
      waiting     from the release of room to the waiting process
      responsive  a small read while other processes read long texts

    The cases of a part take turns. A figure is the median over the rounds, with the quartiles beside it.
    The exit status is 0 even if a target is missed. It is 1 if a part could not be measured.
    """
    if plot:
        try:
            plot.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.FileError(str(plot), error.strerror) from None
    on = machine()
    click.echo("\n".join(f"{name}: {value}" for name, value in on.items()))
    if os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
        click.echo("The machine is busy with something else: do not trust the figures.")
    record: dict[str, object] = {"machine": on, "quick": quick}
    figures: list[Figure] = []
    tables: dict[str, Table] = {}
    failed = False
    for part in dict.fromkeys(parts or PARTS):
        start = time.monotonic()
        try:
            module = import_module(f".{part}", __package__)
            settings = Settings(rounds=rounds or (3 if quick else module.ROUNDS), scale=0.02 if quick else 1)
            entries: Sequence[Figure | Note] = _with_progress(part, settings, module.measure)
        except (OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
            click.echo(f"bench: {part}: cannot be measured: {error}", err=True)
            failed = True
            continue
        click.echo(report.text(part, module.__doc__ or "", settings.rounds, entries, time.monotonic() - start))
        record[part] = report.record(settings.rounds, entries)
        measured = [entry for entry in entries if isinstance(entry, Figure)]
        figures += measured
        if hasattr(module, "table"):
            tables[part] = module.table({figure.what: figure for figure in measured})
    if json_path:
        json_path.write_text(json.dumps(record, indent=1) + "\n")
    if page_path:
        page.write(page_path, figures, tables, on, shlex.join(["scripts/bench", *sys.argv[1:]]), quick)
    if plot:
        from . import pictures  # the import of matplotlib takes a second

        pictures.draw(plot, figures)
    sys.exit(1 if failed else 0)


def _with_progress(
    part: str, settings: Settings, measure: Callable[[Settings, Tick], Sequence[Figure | Note]]
) -> Sequence[Figure | Note]:
    """Measures a part and shows the progress on a terminal."""
    if not sys.stderr.isatty():
        return measure(settings, lambda: None)
    with click.progressbar(length=settings.rounds + 1, label=part, file=sys.stderr) as bar:
        return measure(settings, lambda: bar.update(1))


if __name__ == "__main__":
    bench(prog_name="scripts/bench")
