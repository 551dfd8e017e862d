"""The workers of scripts/workloads on a real mount: their reports agree with the files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounts import GroupFiles, eventually

WORKLOADS = Path(__file__).parents[2] / "scripts" / "workloads"
SHELLS = {"bash": "bash", "dash": "dash", "busybox": "busybox sh"}

# The program, and the files or region that it charges through.
HOW = {
    **{f"python-{through}": ([sys.executable, "charge.py"], through) for through in ("region", "lease", "files")},
    **{
        f"{name}-{through}": ([*shell.split(), "charge.sh"], through)
        for name, shell in SHELLS.items()
        for through in ("lease", "files")
    },
}


def command(how: str, group: Path, *options: str) -> list[str]:
    (*interpreter, script), through = HOW[how]
    return [*interpreter, str(WORKLOADS / script), str(group), "-t", through, *options]


class Workers:
    """A started workload, which keeps its charges until end()."""

    def __init__(self, how: str, group: GroupFiles, *options: str) -> None:
        self.process = subprocess.Popen(
            command(how, group.path, *options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.reports: list[dict[str, str]] = []

    def report(self, processes: int) -> None:
        assert self.process.stdout is not None
        for _ in range(processes):
            line = self.process.stdout.readline()
            assert line, f"no report; exit status {self.process.wait(10)}"
            self.reports.append(dict(pair.split("=", 1) for pair in line.rstrip("\n").split(" ")))

    def sum(self, field: str) -> int:
        return sum(int(report[field]) for report in self.reports)

    def end(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        rest = self.process.stdout.read()
        self.process.stdout.close()
        assert rest == ""
        return self.process.wait(20)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("limit", ["20000", "max"], ids=["near", "far"])
def test_the_usage_of_the_group_equals_the_reports_of_the_workers(how: str, limit: str, group: GroupFiles) -> None:
    group.set_limit(limit)
    workers = Workers(how, group, "-j", "2", "-n", "100", "-s", "4096")
    workers.report(2)

    assert group.usage == workers.sum("held") > 0
    assert group.failcnt == workers.sum("refused")
    assert (workers.sum("refused") > 0) == (limit != "max")
    assert group.usage <= group.limit
    assert all(report["group"] == str(group.path) and report["resource"] == "memory" for report in workers.reports)

    assert workers.end() == 0
    assert group.usage == 0


@pytest.mark.parametrize("how", HOW)
def test_a_terminated_worker_releases_its_charges(how: str, group: GroupFiles) -> None:
    workers = Workers(how, group, "-n", "50", "-r", "tokens", "-s", "9")
    workers.report(1)
    assert group.number("usage", "tokens") == workers.sum("held") > 0
    workers.process.send_signal(signal.SIGTERM)
    assert workers.process.wait(20) != 0
    workers.end()
    assert group.number("usage", "tokens") == 0


@pytest.mark.parametrize("how", [how for how in HOW if not how.endswith("files")])
def test_the_charges_of_a_killed_worker_are_released(how: str, group: GroupFiles) -> None:
    workers = Workers(how, group, "-j", "2", "-n", "50")
    workers.report(2)
    killed, other = workers.reports
    os.kill(int(killed["pid"]), signal.SIGKILL)
    eventually(lambda: group.usage == int(other["held"]), what="the killed worker's share is back")
    assert workers.end() == 1
    eventually(lambda: group.usage == 0)


@pytest.mark.parametrize("how", ["python-region", "dash-files"])
def test_a_worker_stops_after_its_seconds(how: str, group: GroupFiles) -> None:
    workers = Workers(how, group, "-d", "1")
    workers.report(1)
    assert float(workers.reports[0]["seconds"]) == pytest.approx(1, abs=0.5)
    assert group.usage == workers.sum("held")
    assert workers.end() == 0


@pytest.mark.parametrize("how", ["python-region", "python-files", "bash-lease"])
def test_a_worker_on_no_group_fails_in_one_line(how: str, tmp_path: Path) -> None:
    done = subprocess.run(command(how, tmp_path), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and str(tmp_path) in done.stderr
