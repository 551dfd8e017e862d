"""scripts/bench measures and says so; how fast it is, is not a test's business."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"

FIGURES = {
    "engine": [
        "res_counter / fsmount, depth 2, 2 processes",
        "page_counter / fsmount, depth 16, 2 processes",
        "fsmount, depth 16 / depth 2, 2 processes",
        "res_counter / fsmount at limit, depth 16, 16 processes",
        "fsmount beside a limit, depth 2, 256 ahead / apart",
    ],
    "python": ["charge, depth 1 / noop", "Value charge / charge, depth 16", "charge, depth 16 / charge, depth 1"],
    "files": ["read usage, open file / bare", "open, read usage, close / bare", "mkdir of 200 groups / bare, in all"],
    "start": ["import fsmount", "attach, the first of a process"],
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BENCH), *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_measures_and_prints_each_figure_with_its_target(part: str, tmp_path: Path) -> None:
    record = tmp_path / "figures.json"
    done = bench(part, "--quick", "--rounds", "2", "--json", str(record))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {figure["what"]: figure for figure in json.loads(record.read_text())[part]["figures"]}
    for what in FIGURES[part]:
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"  {what} "))
        assert "reached" in line
        assert figures[what]["median"] > 0
        assert figures[what]["low"] <= figures[what]["median"] <= figures[what]["high"]


def test_an_unknown_part_is_a_wrong_command_line() -> None:
    assert bench("nothing").returncode == 2
