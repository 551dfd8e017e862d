"""The engine in C beside models of other designs: those of the RFC and of the kernel.

One program runs all of them, compiled with the engine's options (scripts/benchmarks/models). Depth is the number of
counters that a charge meets: the process's own leaf, and parents that all processes share. A ratio is the cost of a
model divided by the cost of fsmount: above 1 fsmount is faster.

- Far from the limit: each process repeats a charge and its uncharge. The figure is the time of each process, or
  ("together") the elapsed time divided by the pairs of all processes.
- With headroom: the same, at the named number of units below the root's limit.
- At the limit: the processes together want a little more than the limit. A refused process uncharges one unit, so the
  counter refuses half of the charges. The figure is the elapsed time divided by all charges.
- Beside a limit: a neighbour with a processor of its own charges in its own subtree, 1 or 256 units ahead of its
  uncharges. Meanwhile two processes work at the limit of another subtree, or, "apart", of another tree.

Random runs find the errors of a model: in turn, where the correct value is known, and overlapping, where its bounds
are known.
"""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .measure import Case, Figure, Point, Samples, Settings, Spread, Table, Target, Tick, interleave, number

ROUNDS = 9
MILLISECONDS = 20
CHECKED_MILLISECONDS = 1000
SEED = 2012

OURS = "fsmount"
LOCKED, ATOMIC = "res_counter", "page_counter"
MODELS = (LOCKED, "RFC", ATOMIC, "limited add", "stock")
LINES = {
    OURS: OURS,
    LOCKED: "res_counter (2012)\na lock for each level",
    "RFC": "the RFC (2012)\nper-CPU deltas, summed near",
    ATOMIC: "page_counter (today)\nan atomic add for each level",
    "limited add": "percpu limited add\nper-CPU deltas, bounded",
    "stock": "memcg's stock\nnever counted precisely",
}
DEPTHS = (2, 4, 8, 16)
FAR = {
    LOCKED: {2: Target(minimum=15), 4: Target(minimum=30), 16: Target(minimum=80)},
    ATOMIC: {2: Target(minimum=5), 4: Target(minimum=15), 16: Target(minimum=80)},
}
FLAT = Target(0.9, 1.1)
LIMIT_DEPTHS = (2, 16)
LIMIT_PROCESSES = (2, 4, 16)
AT_LIMIT = {2: Target(minimum=1), 16: Target(minimum=2)}
CROWDS = (1, 2, 4, 8, 16)
HEADROOMS = (0, 1, 4, 16, 64, 256, 1024, 4096)
MIDDLE = 4  # the depth of these cases
NEIGHBOURED = (OURS, LOCKED, ATOMIC)
AHEAD = (1, 256)
PLACES = {"beside a limit": "same", "apart": "apart"}
UNDISTURBED = Target(maximum=1.1)
NOTHING = Target(maximum=0)

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "fsmount" / "engine"
SOURCES = [*sorted((ROOT / "scripts" / "benchmarks" / "models").glob("*.c")), *sorted(ENGINE.glob("*/*.c"))]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", "-fvisibility=hidden", "-fwrapv"]  # the options of setup.py


class Program:
    """The program with all models, built in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "models"
        compiler = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, "-I", str(ENGINE)]

        def compiled(source: Path) -> str:
            target = directory / f"{source.parent.name}-{source.stem}.o"
            subprocess.run([*compiler, "-c", str(source), "-o", str(target)], check=True)
            return str(target)

        with ThreadPoolExecutor(os.cpu_count()) as compilers:
            objects = list(compilers.map(compiled, SOURCES))
        subprocess.run([*compiler, *objects, "-o", str(self._path)], check=True)

    def say(self, *arguments: object) -> dict[str, float]:
        command = [str(self._path), *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}

    def cost(self, of: str, what: str, *arguments: object) -> Case:
        """The cost in nanoseconds, from the time of "each" process or of "all"."""
        return lambda: self.say(what, *arguments)[of]


def _processes(number: int) -> str:
    return f"{number} process{'es' if number > 1 else ''}"


def _far(model: str, depth: int, processes: int) -> str:
    return f"{model}, depth {depth}, {_processes(processes)}"


def _together(model: str, processes: int) -> str:
    return f"{_far(model, MIDDLE, processes)} together"


def _near(model: str, headroom: int) -> str:
    return f"{model}, depth {MIDDLE}, 2 processes, headroom {headroom}"


def _limit(model: str, depth: int, processes: int) -> str:
    return f"{model} at limit, depth {depth}, {processes} processes"


def _neighbour(model: str, depth: int, ahead: int, where: str) -> str:
    return f"{model} {where}, depth {depth}, {ahead} ahead"


def _cases(program: Program, milliseconds: int) -> dict[str, Case]:
    """The cases; compared cases are side by side."""
    cases = {}
    everybody = (OURS, *MODELS)
    for processes in (1, 2):
        for depth in DEPTHS:
            for model in everybody:
                cases[_far(model, depth, processes)] = program.cost(
                    "each", "pairs", model, depth, processes, milliseconds
                )
    for processes in CROWDS:
        for model in everybody:
            cases[_together(model, processes)] = program.cost("all", "pairs", model, MIDDLE, processes, milliseconds)
    for headroom in HEADROOMS:
        for model in everybody:
            cases[_near(model, headroom)] = program.cost("each", "pairs", model, MIDDLE, 2, milliseconds, headroom)
    for depth in LIMIT_DEPTHS:
        for processes in LIMIT_PROCESSES:
            for model in everybody:
                cases[_limit(model, depth, processes)] = program.cost(
                    "all", "limit", model, depth, processes, milliseconds
                )
        for model in NEIGHBOURED:
            for ahead in AHEAD:
                for where, tree in PLACES.items():
                    cases[_neighbour(model, depth, ahead, where)] = program.cost(
                        "each", "neighbour", model, depth, 2, milliseconds, ahead, tree
                    )
    return cases


def _points() -> dict[str, Point]:
    """The cases with a point in a plot."""
    points: dict[str, Point] = {}
    for model, name in LINES.items():
        points |= {_far(model, depth, 2): Point("depth", name, depth) for depth in DEPTHS}
        points |= {_together(model, crowd): Point("processes", name, crowd) for crowd in CROWDS}
        points |= {_near(model, headroom): Point("headroom", name, headroom) for headroom in HEADROOMS}
    return points


def _ratios(samples: Samples) -> list[Figure]:
    figures = []
    for processes in (2, 1):
        for model in MODELS:
            for depth in DEPTHS:
                target = FAR.get(model, {}).get(depth) if processes == 2 else None
                base = _far(OURS, depth, processes)
                figures.append(samples.ratio(_far(model, depth, processes), base, target, what=f"{model} / {base}"))
        low, high = (_far(OURS, depth, processes) for depth in (DEPTHS[0], DEPTHS[-1]))
        what = f"{OURS}, depth {DEPTHS[-1]} / depth {DEPTHS[0]}, {_processes(processes)}"
        figures.append(samples.ratio(high, low, FLAT, what=what))
    for model in MODELS:
        for crowd in CROWDS[2:]:
            base = _together(OURS, crowd)
            figures.append(samples.ratio(_together(model, crowd), base, what=f"{model} / {base}"))
        for headroom in HEADROOMS:
            base = _near(OURS, headroom)
            figures.append(samples.ratio(_near(model, headroom), base, what=f"{model} / {base}"))
    for model in MODELS:
        for depth in LIMIT_DEPTHS:
            for processes in LIMIT_PROCESSES:
                base = _limit(OURS, depth, processes)
                target = AT_LIMIT[depth] if model == LOCKED else None
                figures.append(samples.ratio(_limit(model, depth, processes), base, target, what=f"{model} / {base}"))
    for model in NEIGHBOURED:
        for depth in LIMIT_DEPTHS:
            for ahead in AHEAD:
                case, base = (_neighbour(model, depth, ahead, where) for where in PLACES)
                target = UNDISTURBED if model == OURS else None
                figures.append(samples.ratio(case, base, target, what=f"{case} / apart"))
    return figures


def _errors(program: Program, milliseconds: int) -> list[Figure]:
    """The errors of each model. For fsmount and for limits, also the checks that found none."""
    figures = []
    for model in (OURS, *MODELS):
        found = program.say("check", model, SEED, milliseconds)
        errors: dict[tuple[str, str], float] = {
            ("units above a limit", ""): max(found["in_turn.overshoot"], found["overlapping.overshoot"])
        }
        for when, key in (("in turn", "in_turn"), ("overlapping", "overlapping")):
            refused = 100 * found[f"{key}.false_refusals"] / found[f"{key}.charges"]
            errors[f"refusals of what fits, {when}", "%"] = refused
            errors[f"units that a usage was off, {when}", ""] = found[f"{key}.usage"]
        for what in ("early", "late"):
            if found[f"in_turn.{what}"] >= 0:
                errors[f"units that an event was {what}", ""] = found[f"in_turn.{what}"]
        figures += [
            Figure(f"{model}: {what}", unit, Spread(value, value, value), NOTHING if model == OURS else None)
            for (what, unit), value in errors.items()
            if value or model == OURS or "limit" in what
        ]
    return figures


def measure(settings: Settings, tick: Tick) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fsmount-bench-") as directory:
        program = Program(Path(directory))
        cases = _cases(program, settings.operations(MILLISECONDS, minimum=2))
        samples = interleave(cases, settings.rounds, tick)
        errors = _errors(program, settings.operations(CHECKED_MILLISECONDS, minimum=100))
    points = _points()
    return [*_ratios(samples), *errors, *(samples.cost(case, at=points.get(case)) for case in cases)]


def table(figures: Mapping[str, Figure]) -> Table:
    """A row for each model: its time relative to fsmount with two processes, and its errors."""
    bases = {f"depth {depth}": _far(OURS, depth, 2) for depth in DEPTHS if depth != 8}
    bases |= {f"at a limit, depth {depth}": _limit(OURS, depth, 2) for depth in LIMIT_DEPTHS}
    rows = []
    for model in MODELS:
        ratios = (figures[f"{model} / {base}"].spread.median for base in bases.values())
        wrong = [
            f"{what.partition(': ')[2]}: {number(figure.spread.median)} {figure.unit}".rstrip()
            for what, figure in figures.items()
            if what.startswith(f"{model}: ") and figure.spread.median
        ]
        rows.append([LINES[model].replace("\n", ": "), *map(number, ratios), "; ".join(wrong) or "nothing"])
    return Table(["times as slow as fsmount, 2 processes", *bases, "errors"], rows)
