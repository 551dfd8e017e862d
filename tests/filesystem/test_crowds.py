"""
Thousands of holders: killed at random moments, all at once, and one by one.

FSMOUNT_SOAK=1 runs the full numbers; the normal run uses a few of them. FSMOUNT_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsmount import Tree
from tests.filesystem.crowd import (
    CHARGE,
    COUNTERS,
    DONE,
    GIVE,
    GROUPS,
    RESOURCES,
    STOP,
    STOPPED,
    TAKE,
    UNCHARGE,
    Crowd,
    Ledger,
    Slot,
    a_crowd,
)  # fmt: skip
from tests.footprint import Footprint, leaves_nothing
from tests.mounts import UNLIMITED, GroupFiles, Mount, eventually, mounted

pytestmark = pytest.mark.timeout(3000)  # FSMOUNT_SOAK=1 takes minutes

OPTIONS = [word for name in RESOURCES for word in ("--resource", name if name == "memory" else f"{name}:count")]
VICTIMS = 4


@pytest.fixture(params=["auto"])
def own(request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount for this test alone, with the given batch; its region must be sound at the end."""
    with mounted(*OPTIONS, "--batch", request.param) as mount:
        yield mount
        mount.check()
        assert mount.region is not None
        with Tree.open(mount.region) as tree:
            assert tree.check() == []
            assert tree.holders() == []


@pytest.fixture
def crowd() -> Iterator[tuple[Crowd, Ledger]]:
    with a_crowd() as made:
        yield made


def footprint(mount: Mount) -> Footprint:
    assert mount.daemon is not None
    return Footprint.of(mount.daemon.pid)


def as_before(mount: Mount, before: Footprint) -> None:
    assert mount.daemon is not None
    after = leaves_nothing(mount.daemon.pid, before)
    print(f"the daemon: {before.memory >> 10} KB before, {after.memory >> 10} KB after")


def kill(pids: list[int]) -> None:
    """Kills the processes, and returns when they have ended."""
    ends = [os.pidfd_open(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], 60)[0]
        os.close(end)


# ---- at random moments --------------------------------------------------------------------------------


@dataclass
class Worker:
    slot: Slot
    pid: int
    keeps: bool
    dead: bool = False
    counted: bool = False  # its gifts and refusals are counted

    def newly_kept(self) -> list[int]:
        """The amounts of each counter that the group holds in addition: given since the last count, or kept."""
        given = [0] * COUNTERS if self.counted else self.slot.given
        if self.dead and self.keeps:
            return [one + kept for one, kept in zip(given, self.slot.held, strict=True)]
        return given

    def kill(self) -> None:
        kill([self.pid])
        self.dead = True

    def newly_refused(self) -> int:
        refused = 0 if self.counted else self.slot.refused
        self.counted = True
        return refused

    def effect(self, counter: int) -> int:
        """The amount that the group may hold in addition, if the worker's last operation took effect."""
        if self.slot.unfinished is None or self.slot.unfinished[1] != counter:
            return 0
        kind, _, amount = self.slot.unfinished
        if self.keeps:
            return {CHARGE: amount, UNCHARGE: -amount}.get(kind, 0)
        return {GIVE: amount, TAKE: -amount}.get(kind, 0)


class Accounts:
    """The charges that the workers report, compared with the charges in the files."""

    def __init__(self, top: GroupFiles, rng: random.Random) -> None:
        self.top, self.rng = top, rng
        self.groups = [top]
        while len(self.groups) < GROUPS:
            self.groups.append(self.groups[-1].mkdir(f"g{len(self.groups)}"))
        self.common = [0] * COUNTERS
        self.refused = 0
        self.limits = [UNLIMITED] * COUNTERS

    @property
    def counters(self) -> list[tuple[int, str]]:
        """Group and resource of each counter, in the order of the ledger."""
        return [(number, name) for number in range(GROUPS) for name in RESOURCES]

    def stats(self) -> list[dict[str, int]]:
        return [self.groups[number].stat(name) for number, name in self.counters]

    def squeeze(self) -> None:
        """Sets other limits, and uncharges some of the kept charges."""
        for index, (number, name) in enumerate(self.counters):
            if self.common[index]:
                amount = self.rng.randint(0, self.common[index])
                self.groups[number].uncharge(amount, name)
                self.common[index] -= amount
        index = self.rng.randrange(COUNTERS)
        number, name = self.counters[index]
        usage = self.groups[number].number("usage", name)
        limit = UNLIMITED if self.rng.random() < 0.3 else usage + self.rng.choice((0, 500, 5_000, 100_000))
        self.groups[number].set_limit(limit, name)
        self.limits[index] = limit

    def settle(self, dead: list[Worker], living: Worker | None = None) -> None:
        """Checks that the charges of dead workers are released or kept, and those of a living worker are there."""
        eventually(lambda: self.nobody_but(living), what="the end of the dead")
        workers = [*dead, living] if living else dead
        expected = list(self.common)
        for worker in workers:
            expected = [before + more for before, more in zip(expected, worker.newly_kept(), strict=True)]
        stats = self.stats()
        held = living.slot.held if living else [0] * COUNTERS
        for index, stat in enumerate(stats):
            possible = {expected[index]}
            for worker in dead:
                possible |= {amount + worker.effect(index) for amount in possible}
            assert stat["common"] in possible, (self.counters[index], stat, possible)
            assert stat["usage_local"] == stat["common"] + held[index], (self.counters[index], stat, held[index])
            below = range(index, COUNTERS, len(RESOURCES))
            assert stat["usage"] == sum(stats[one]["usage_local"] for one in below), (self.counters[index], stat)
            assert stat["reserved"] == stat["usage"] + stat["stock"] <= stat["limit"] == self.limits[index], stat
            assert stat["usage"] <= stat["max_usage"] + stat["error_bound"], (self.counters[index], stat)
        self.common = [stat["common"] for stat in stats]
        failcnt = sum(stat["failcnt"] for stat in stats)
        self.refused += sum(worker.newly_refused() for worker in workers)
        assert self.refused <= failcnt <= self.refused + sum(worker.slot.unfinished is not None for worker in dead)
        self.refused = failcnt

    def nobody_but(self, living: Worker | None) -> bool:
        pids = (0, living.pid) if living else (0,)
        return all(line.pid in pids for group in self.groups for name in RESOURCES for line in group.holders(name))


@pytest.mark.parametrize(("own", "deaths"), [("auto", 10_000), ("0", 1_000)], indirect=["own"])
def test_workers_killed_at_random_moments_leave_every_counter_exact(
    own: Mount, crowd: tuple[Crowd, Ledger], seed: int, soak: bool, deaths: int
) -> None:
    rng = random.Random(seed)
    accounts = Accounts(own.root.mkdir("top"), rng)
    zygote, ledger = crowd
    paths = [str(group.path) for group in accounts.groups]

    def hire(number: int) -> Worker:
        slot = ledger.slots[number]
        slot.clear()
        keeps = rng.random() < 0.4
        pid = zygote.fork(
            "charge",
            slot=number,
            groups=paths,
            numbers=rng.sample(range(GROUPS), rng.randint(1, 3)),
            seed=rng.randrange(2**32),
            transport="files" if rng.random() < 0.2 else "memory",
            on_exit="keep" if keeps else "release",
            size=rng.choice((10, 1_000, 20_000)),
        )
        return Worker(slot, pid, keeps)

    def kill_a_batch() -> int:
        living, *victims = [hire(number) for number in range(VICTIMS + 1)]
        start = time.monotonic()
        moments = sorted(rng.uniform(0, 0.04) for _ in victims)
        for moment, victim in zip(moments, victims, strict=True):
            time.sleep(max(0, start + moment - time.monotonic()))
            victim.kill()
        living.slot.words[STOP] = 1
        eventually(lambda: living.slot.words[STOPPED], what="the survivor stops")
        accounts.settle(victims, living)
        living.kill()
        accounts.settle([living])
        accounts.squeeze()
        return sum(worker.slot.words[DONE] for worker in (living, *victims))

    for _ in range(8):  # warms the daemon up
        kill_a_batch()
    before = footprint(own)
    killed = operations = 0
    began = time.monotonic()
    while killed < (deaths if soak else 60):
        operations += kill_a_batch()
        killed += VICTIMS
    print(f"{killed} killed in {time.monotonic() - began:.0f} s, after {operations} operations")
    as_before(own, before)
    for group in accounts.groups:
        for name in RESOURCES:
            group.write("force_empty", "1", name)
            group.set_limit("max", name)
    assert all(stat["usage"] == stat["reserved"] == stat["holders"] == 0 for stat in accounts.stats())


# ---- all at once --------------------------------------------------------------------------------------


class Readings:
    """The times that another thread's reads of a file take meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.seconds: list[float] = []

    def _read(self) -> None:
        while not self._stop.is_set():
            start = time.perf_counter()
            self._path.read_bytes()
            self.seconds.append(time.perf_counter() - start)

    def __enter__(self) -> Readings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"{len(self.seconds)} reads meanwhile: {distribution(self.seconds)}"


def distribution(seconds: list[float]) -> str:
    ordered = [1000 * one for one in sorted(seconds)]
    return (
        f"median {statistics.median(ordered):.2f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.2f} ms, "
        f"most {ordered[-1]:.2f} ms"
    )


def test_thousands_of_holders_at_once_and_their_deaths_at_once(
    own: Mount, crowd: tuple[Crowd, Ledger], soak: bool
) -> None:
    zygote, _ = crowd
    group, other = own.root.mkdir("group"), own.root.mkdir("other")
    count = 4_000 if soak else 100

    def live_and_die() -> None:
        start = time.monotonic()
        pids = [zygote.fork("hold", group=str(group.path), amount=1 + number) for number in range(count)]
        zygote.until(count)
        attached = time.monotonic() - start
        usage = count * (count + 1) // 2
        assert (group.usage, group.stat()["holders"], len(group.holders())) == (usage, count, count)
        with Readings(other.file("usage")) as readings:
            start = time.monotonic()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            signalled = time.monotonic()
            eventually(group.empty, within=120)
            given_back = time.monotonic()
        print(
            f"{count} holders: attached in {attached:.1f} s, killed within {signalled - start:.2f} s, "
            f"all released {given_back - signalled:.3f} s later; {readings}"
        )
        assert group.holders() == []

    live_and_die()  # Python keeps freed memory in pieces for the next round
    before = footprint(own)
    live_and_die()
    as_before(own, before)


def test_thousands_of_open_leases_at_once_and_their_last_closes_at_once(
    own: Mount, crowd: tuple[Crowd, Ledger], soak: bool
) -> None:
    zygote, _ = crowd
    group, other = own.root.mkdir("group"), own.root.mkdir("other")
    count = 10_000 if soak else 200
    share = min(2_500, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)

    def open_and_close() -> None:
        start = time.monotonic()
        shares = [min(share, count - begun) for begun in range(0, count, share)]
        pids = [zygote.fork("leases", path=str(group.file("lease")), count=one) for one in shares]
        zygote.until(len(pids))
        opened = time.monotonic() - start
        assert (group.usage, group.stat()["holders"], len(group.holders())) == (count, count, count)
        with Readings(other.file("usage")) as readings:
            start = time.monotonic()
            kill(pids)
            eventually(group.empty, within=120)
            given_back = time.monotonic() - start
        print(f"{count} leases: opened in {opened:.1f} s, all released in {given_back:.3f} s; {readings}")
        assert group.holders() == []

    for _ in range(5 if soak else 1):  # Python keeps freed memory in pieces, and needs fewer new pieces each time
        open_and_close()
    before = footprint(own)
    for _ in range(3):
        open_and_close()
    as_before(own, before)


def test_holders_and_leases_that_come_and_go_leave_nothing_in_the_daemon(
    own: Mount, crowd: tuple[Crowd, Ledger], soak: bool
) -> None:
    zygote, _ = crowd
    before = footprint(own)
    for wave in range(100 if soak else 5):
        leases = [own.root.lease() for _ in range(200)]
        for lease in leases:
            lease.write("1")
        pids = [zygote.fork("hold", group=str(own.path), amount=1) for _ in range(10)]
        zygote.until(len(pids))
        for lease in leases:
            lease.close()
        kill(pids)
        eventually(lambda: not own.root.holders())
        before = before if wave else footprint(own)
    as_before(own, before)


# ---- one by one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hold", "leases"])
def test_the_charges_of_a_killed_process_are_released_soon(
    own: Mount, crowd: tuple[Crowd, Ledger], soak: bool, kind: str
) -> None:
    """The times are only printed: a loaded machine may take long."""
    zygote, _ = crowd
    tasks: dict[str, dict[str, object]] = {
        "hold": {"group": str(own.path), "amount": 100},
        "leases": {"path": str(own.root.file("lease")), "count": 1},
    }
    seconds = []
    for _ in range(500 if soak else 10):
        pid = zygote.fork(kind, **tasks[kind])
        zygote.until(1)
        assert not own.root.empty()
        start = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        eventually(own.root.empty)
        seconds.append(time.perf_counter() - start)
    print(f"from kill -9 to the usage without it: {distribution(seconds)}")
