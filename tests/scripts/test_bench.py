"""scripts/bench measures and prints its figures; no test depends on the speed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from scripts.benchmarks import peers
from scripts.benchmarks.baselines import admission
from scripts.benchmarks.plots import PLOTS
from tests.engine.programs import FLAGS

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts" / "bench"

FIGURES = {
    "engine": [
        "res_counter / fsmount, depth 2, 2 processes",
        "page_counter / fsmount, depth 16, 2 processes",
        "fsmount, depth 16 / depth 2, 2 processes",
        "res_counter / fsmount at limit, depth 16, 16 processes",
        "fsmount beside a limit, depth 2, 256 ahead / apart",
    ],
    "python": ["charge, depth 2 / noop", "counter.charge(n), depth 16 / noop", "charge, depth 16 / charge, depth 2"],
    "files": [
        "read usage, open file / bare",
        "open, read usage, close / C",
        "writes of 4 writers / of one",
        "mkdir of 200 groups / bare, in all",
    ],
    "scale": [
        "usage of a leaf, 2,000 / 20",
        "usage of the root, 200 cells open, 2,000 / 20",
        "every group in one pass, all cells open, 2,000 / 20, a group",
        "mkdir of 2,000 groups / bare, in all",
        "region, each of 2,000 groups",
        "memory of the daemon, 2,000 groups listed",
        "fsmount top, 2,000 groups",
        "take-over, 20,000 cells open",
    ],
    "peers": ["multiprocessing.Value / fsmount, 1 process", "SQLite (WAL) / fsmount, 1 process"],
    "start": ["from fsmount import attach", "attach, the first of a process", "fsmount charge"],
    "waiting": ["process", "process, through files", "task of trio in a process", "thread"],
    "responsive": ["p50, beside a reader of holders", "p99, beside 24 readers of metrics"],
}


if shutil.which("redis-server") or os.geteuid() == 0:
    FIGURES["peers"].append("Redis, Lua script / fsmount, 1 process")

# Texts that must be on the pictures of a part.
PICTURES = {
    "engine": {
        "depth": ["as the tree gets deeper", "fsmount", "res_counter (2012)", "memcg's stock", "16"],
        "processes": ["as more processes charge", "fsmount", "page_counter (today)", "16"],
        "headroom": ["as the limit comes near", "fsmount", "percpu limited add", "0", "4,096"],
    },
    "python": {"depth": ["fsmount, from Python", "2", "4", "16"]},
    "scale": {"groups": ["as the tree gets larger", "usage of a leaf", "mkdir"]},
    "peers": {"peers": ["Charging under two limits", "fsmount", "multiprocessing.Value", "SQLite (WAL)"]},
}


def written(picture: Path) -> list[str]:
    """The texts on a picture: letters are drawn, and a comment before them has each text."""
    drawn = picture.read_text()
    ElementTree.fromstring(drawn)
    return re.findall(r"<!-- (.*?) -->", drawn, re.DOTALL)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BENCH), *arguments], capture_output=True, text=True, timeout=600, check=False)


class Run(NamedTuple):
    """One run of all parts."""

    printed: str
    record: dict[str, Any]
    page: str
    pictures: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("bench")
    record, page = directory / "figures.json", directory / "page.md"
    options = ["--quick", "--rounds", "2", "--json", str(record), "--plot", str(directory), "--page", str(page)]
    done = bench(*FIGURES, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(done.stdout, json.loads(record.read_text()), page.read_text(), directory)


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_prints_each_figure_with_its_target(run: Run, part: str) -> None:
    figures = {figure["what"]: figure for figure in run.record[part]["figures"]}
    for what in FIGURES[part]:
        lines = [line for line in run.printed.splitlines() if line.startswith(f"  {what} ")]
        assert any("reached" in line for line in lines)
        assert figures[what]["median"] > 0
        assert figures[what]["low"] <= figures[what]["median"] <= figures[what]["high"]
    assert {figure["at"]["plot"] for figure in figures.values() if figure["at"]} == set(PICTURES.get(part, {}))


def test_the_points_are_on_the_page_and_on_the_pictures(run: Run) -> None:
    pictures = {name: texts for part in PICTURES.values() for name, texts in part.items()}
    assert {plot.name for plot in PLOTS if f"## {plot.title}\n" in run.page} == set(pictures)
    assert {picture.stem for picture in run.pictures.glob("*.svg")} == set(pictures)
    for name, texts in pictures.items():
        found = written(run.pictures / f"{name}.svg")
        assert [text for text in texts if not any(text in line for line in found)] == []


def test_the_page_in_the_documentation_has_the_tables_of_a_whole_run() -> None:
    page = (ROOT / "fsmount" / "docs" / "bench.md").read_text()
    assert [plot.title for plot in PLOTS if f"## {plot.title}\n" not in page] == []
    assert "--quick" not in page


def test_a_peer_that_passes_a_limit_is_not_measured() -> None:
    @contextmanager
    def apart(limits: admission.Limits) -> Iterator[admission.Join]:
        """Each process has a separate parent."""
        with admission.values(limits) as first, admission.values(limits) as second:
            yield lambda process: (first, second)[process](process)

    with pytest.raises(RuntimeError, match="apart admits 60 and 60 under limits of 60 and 100"):
        peers.check("apart", apart)


def test_without_redis_and_without_a_way_to_install_it_the_peer_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(admission.Unavailable, match="redis-server is missing"), admission.keys(peers.SMALL):
        pass


def test_the_bare_file_system_in_c_compiles_without_a_warning() -> None:
    source = BENCH.with_name("benchmarks") / "baselines" / "bare.c"
    library = subprocess.run(["pkg-config", "--cflags", "fuse3"], capture_output=True, text=True, check=True)
    command = ["gcc", *FLAGS, "-fsyntax-only", *library.stdout.split(), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_part_is_a_wrong_command_line() -> None:
    assert bench("nothing").returncode == 2


def test_a_directory_that_cannot_be_made_is_reported_before_any_measurement(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bench("start", "--plot", str(tmp_path / "file" / "page"))
    assert done.returncode == 1
    assert "Not a directory" in done.stderr and "Traceback" not in done.stderr
    assert "processor" not in done.stdout
