"""
Random trees, random limits and many processes at once, seen from outside.

Each test prints its seed. FSMOUNT_SEED repeats a run, FSMOUNT_SOAK=1 takes longer.
"""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.holder_process import HolderProcess, Refused
from tests.mounts import UNLIMITED, GroupFiles, Mount, eventually, fails_with

pytestmark = pytest.mark.timeout(900)  # FSMOUNT_SOAK=1 takes minutes

DEPTH = 16
SHELLS = (["bash"], ["dash"], ["busybox", "sh"])
SHELL_WORKER = """
held=0 refused=0 operations=0
echo ready
while
    for amount in $2; do
        if [ "$amount" -ge 0 ]; then
            if echo "$amount" >memory.charge; then held=$((held + amount)); else refused=$((refused + 1)); fi
        elif [ "$held" -ge "${amount#-}" ]; then
            echo "${amount#-}" >memory.uncharge || exit 1
            held=$((held + amount))
        fi
        operations=$((operations + 1))
    done 2>/dev/null
    [ ! -e "$1" ]
do :; done
printf '{"given": {"%s": %d}, "held": {}, "refused": {"%s": %d}, "operations": %d}\\n' \\
    "$PWD" "$held" "$PWD" "$refused" "$operations"
read -r line
exit 0
"""


@dataclass
class Worker:
    """A worker process and, once it has stopped, its report."""

    kind: str
    process: subprocess.Popen[str]
    on_exit: str = "release"
    report: dict[str, Any] | None = None

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", f"a {self.kind} worker ended: {self.process.wait(60)}"

    def request_stop(self) -> None:
        if self.kind != "shell":
            assert self.process.stdin is not None
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def read_report(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"a {self.kind} worker ended: {self.process.wait(60)}"
        self.report = json.loads(line)
        return self.report

    def end(self) -> None:
        self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0, self

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


class Crew:
    """The workers of a test, and the file that stops them."""

    def __init__(self, rng: random.Random, stop: Path) -> None:
        self.rng, self.stop = rng, stop
        self.workers: list[Worker] = []

    def hire(self, kind: str, groups: list[GroupFiles], *, size: int, max_held: int, on_exit: str = "release") -> None:
        if kind == "shell":
            amounts = [self.rng.choice((1, 1, -1)) * self.rng.randrange(size) for _ in range(60)]
            script = [SHELL_WORKER, "worker", str(self.stop), " ".join(map(str, amounts))]
            command, directory = [*self.rng.choice(SHELLS), "-c", *script], groups[0].path
        else:
            task = {
                "kind": kind,
                "groups": [str(group.path) for group in groups],
                "seed": self.rng.randrange(2**32),
                "size": size,
                "max_held": max_held,
                "on_exit": on_exit,
                "gives": kind != "lease",
            }
            command, directory = [sys.executable, "-P", str(WORKER), json.dumps(task)], Path.cwd()
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.workers.append(Worker(kind, process, on_exit))

    def ready(self) -> None:
        for worker in self.workers:
            worker.ready()

    def stop_all(self) -> list[dict[str, Any]]:
        self.stop.touch()
        for worker in self.workers:
            worker.request_stop()
        return [worker.read_report() for worker in self.workers]

    def dismiss(self) -> None:
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.kill()


WORKER = Path(__file__).with_name("stress_worker.py")


@pytest.fixture
def crew(seed: int, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(random.Random(seed), tmp_path / "stop")
    yield crew
    crew.dismiss()


def grow(rng: random.Random, top: GroupFiles, groups: int) -> list[GroupFiles]:
    """A random tree below the top with one branch of the maximum depth; parents come before children."""
    made, depths = [top], {top.path: 1}
    while len(made) < groups:
        chain = len(made) <= DEPTH - 1 and rng.random() < 0.8
        candidates = [group for group in made if depths[group.path] < DEPTH]
        parent = candidates[-1] if chain else rng.choice(candidates)
        made.append(parent.mkdir(f"g{len(made)}"))
        depths[made[-1].path] = depths[parent.path] + 1
    return made


def below(path: Path, group: GroupFiles) -> bool:
    return path == group.path or group.path in path.parents


def expected_usage(reports: list[dict[str, Any]], group: GroupFiles, what: tuple[str, ...] = ("held", "given")) -> int:
    return sum(
        amount
        for report in reports
        for name in what
        for path, amount in report[name].items()
        if below(Path(path), group)
    )


def check_sums(groups: list[GroupFiles], reports: list[dict[str, Any]]) -> None:
    for group in groups:
        stat = group.stat()
        assert stat["usage"] == group.usage == expected_usage(reports, group), group
        own = [report[name].get(str(group.path), 0) for report in reports for name in ("held", "given")]
        assert stat["usage_local"] == sum(own), group
        assert stat["common"] == sum(report["given"].get(str(group.path), 0) for report in reports), group
        assert stat["reserved"] == stat["usage"] + stat["stock"] <= stat["limit"], group
        assert stat["usage"] <= stat["max_usage"] + stat["error_bound"], group


@pytest.mark.parametrize("workers", [2, 7, 16])
def test_no_usage_exceeds_its_limit_and_every_sum_equals_the_charges_of_the_workers(
    mount: Mount, group: GroupFiles, crew: Crew, soak: bool, workers: int
) -> None:
    rng = crew.rng
    groups = grow(rng, group, rng.randint(DEPTH, 40))
    limits = {
        one.path: rng.choice((rng.randrange(10_000), rng.randrange(100_000), rng.randrange(1_000_000)))
        for one in groups[1:]
        if rng.random() < 0.4
    }
    # If only the top has a limit, only the top can refuse.
    plain = [one for one in groups if not any(below(one.path, GroupFiles(path)) for path in limits)]
    jobs: list[tuple[str, list[GroupFiles], int, str]] = []
    for kind in ["memory", *rng.choices(("memory", "files", "lease", "shell"), (5, 2, 2, 1), k=workers - 1)]:
        where = groups if kind == "memory" else plain
        count = 1 if kind == "shell" else min(len(where), rng.randint(1, 4))
        on_exit = rng.choice(("release", "keep")) if kind in ("memory", "files") else "release"
        jobs.append((kind, rng.sample(where, count), rng.choice((100, 5_000, 60_000)), on_exit))
    wanted = sum(20 * size * len(where) for _, where, size, _ in jobs)
    limits[group.path] = int(wanted * rng.uniform(0.05, 0.5))
    for path, limit in limits.items():
        GroupFiles(path).set_limit(limit)
    for kind, where, size, on_exit in jobs:
        crew.hire(kind, where, size=size, max_held=20 * size, on_exit=on_exit)
    crew.ready()

    def has_refused() -> bool:
        return workers < 16 or any(one.failcnt for one in groups)

    rounds = 0
    end = time.monotonic() + (60 if soak else 1.5)
    while time.monotonic() < end or rounds < 3 or (time.monotonic() < end + 60 and not has_refused()):
        for one in groups:
            usage, limit = one.usage, limits.get(one.path, UNLIMITED)
            assert usage <= limit, one
        rounds += 1
    reports = crew.stop_all()
    assert all(report["operations"] for report in reports)

    check_sums(groups, reports)
    assert all(one.max_usage <= limits.get(one.path, UNLIMITED) for one in groups)
    refusals: Counter[str] = Counter()
    for worker, report in zip(crew.workers, reports, strict=True):
        for path, count in report["refused"].items():
            refusals[path if worker.kind == "memory" else str(group.path)] += count
    assert {str(one.path): one.failcnt for one in groups if one.failcnt} == {
        path: count for path, count in refusals.items() if count
    }
    if workers == 16:
        assert refusals.total(), "limits such as these refuse something"

    # A dead worker releases exactly its own charges, or leaves them to its groups.
    for index, worker in enumerate(crew.workers):
        if index % 2:
            worker.kill()
        else:
            worker.end()
        if worker.on_exit == "keep":
            for path, amount in reports[index]["held"].items():
                reports[index]["given"][path] += amount
        reports[index]["held"] = {}
        eventually(lambda: group.usage == expected_usage(reports, group), what=f"{worker.kind} {worker.on_exit}")
    eventually(lambda: all(line.command == "common" for one in groups for line in one.holders()))
    check_sums(groups, reports)
    for one in groups:
        if common := one.stat()["common"]:
            one.uncharge(common)
    stat = group.stat()
    assert (stat["usage"], stat["reserved"], stat["stock"], stat["holders"]) == (0, 0, 0, 0)


def test_a_limit_set_during_charges_holds_or_is_ebusy_and_the_old_limit_stays(
    group: GroupFiles, crew: Crew, soak: bool
) -> None:
    rng = crew.rng
    groups = [group, group.mkdir("a"), group.mkdir("b"), group.mkdir("c").mkdir("d")]
    limit = 500_000
    group.set_limit(limit)
    for kind in ("memory", "memory", "memory", "files", "shell"):
        size = 2_000
        crew.hire(kind, [rng.choice(groups)], size=size, max_held=100 * size)
    crew.ready()
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + (60 if soak else 2)
    while time.monotonic() < end or len(outcomes) < 2:
        value = max(0, int(group.usage * rng.uniform(0.7, 1.3)) + rng.randrange(-200, 2000))
        try:
            group.set_limit(value)
            outcomes["set"] += 1
            limit = value
        except OSError as error:
            outcomes[errno.errorcode[error.errno or 0]] += 1
        assert group.limit == limit
        for _ in range(rng.randrange(20)):
            assert group.usage <= limit
    assert outcomes.keys() == {"set", "EBUSY"}, "the test proved nothing, or another error came"
    reports = crew.stop_all()
    check_sums(groups, reports)
    failcnt = sum(sum(report["refused"].values()) for report in reports)
    assert [one.failcnt for one in groups] == [failcnt, 0, 0, 0]


def test_free_room_can_be_charged_to_the_last_byte_despite_stock(group: GroupFiles, seed: int, soak: bool) -> None:
    rng = random.Random(seed)
    groups = grow(rng, group, 20)
    holders = [HolderProcess(one.path, transport="memory") for one in rng.sample(groups, 4)]
    held = dict.fromkeys(range(4), 0)
    stock_seen = 0
    try:
        for _ in range(300 if soak else 40):
            limit = sum(held.values()) + rng.choice((1, 100, 10_000, 10_000_000))
            group.set_limit(limit)
            for _ in range(rng.randrange(1, 12)):
                index = rng.randrange(4)
                room = limit - sum(held.values())
                amount = rng.randint(0, room)
                holders[index].charge(amount)
                held[index] += amount
                amount = rng.randint(0, held[index])
                holders[index].uncharge(amount)
                held[index] -= amount
            stock_seen += group.stat()["stock"] > 0
            free, before, index = limit - sum(held.values()), group.failcnt, rng.randrange(4)
            where = rng.choice(groups)
            greedy_first = rng.random() < 0.5
            if greedy_first:
                with fails_with(errno.ENOMEM):
                    where.charge(free + 1)
            if rng.random() < 0.5:
                where.charge(free)
                assert group.usage == limit
                where.uncharge(free)
            else:
                holders[index].charge(free)
                assert group.usage == limit
                with pytest.raises(Refused):
                    holders[index].charge(1)
                holders[index].uncharge(free)
                before += 1
            assert group.failcnt == before + greedy_first
    finally:
        for holder in holders:
            holder.end()
    assert stock_seen, "no stock at all: this proved nothing"
    eventually(group.empty)
