"""The engine from outside: several real processes charge one tree at once, and die."""

from __future__ import annotations

import errno
import random
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from fsmount import UNLIMITED, LimitExceeded, Tree
from fsmount.shm import Counter, Group
from tests.engine.workers import Progress, Refused, Worker

RESOURCES = ("memory", "tokens")
BATCHES: list[int | str] = ["auto", 0, 64]


@pytest.fixture(params=BATCHES, ids=lambda batch: f"batch={batch}")
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with Tree.create(None, ["memory", "tokens:count"], batch=request.param, groups=64, holders=64, cells=2048) as made:
        yield made


def grow(tree: Tree, source: random.Random, *, depth: int, groups: int, limit: int) -> list[Group]:
    """A random tree with one branch of a given depth; every second group has limits."""
    made = [(tree.root, 0)]
    for number in range(groups):
        if number < depth:
            parent, level = made[-1]
        else:
            parent, level = source.choice([(group, at) for group, at in made if at < depth])
        made.append((parent.mkdir(f"g{number}"), level + 1))
    for group, _ in made:
        for resource in RESOURCES:
            if group is tree.root or source.random() < 0.5:
                group[resource].limit = limit if group is tree.root else source.randrange(limit // 20, limit)
    return [group for group, _ in made]


def counters_of(groups: list[Group]) -> list[Counter]:
    return [group[resource] for group in groups for resource in RESOURCES]


@contextmanager
def working(
    tree: Tree, groups: list[Group], source: random.Random, *, workers: int, max_amount: int, keep: bool = False
) -> Iterator[tuple[list[Worker], Progress]]:
    """Workers in random groups, at work."""
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        team = [stack.enter_context(Worker(tree, progress, slot)) for slot in range(workers)]
        for worker in team:
            set_to_work(worker, groups, source, max_amount=max_amount, keep=keep)
        progress.wait_for(range(workers), 1)
        yield team, progress


def set_to_work(
    worker: Worker, groups: list[Group], source: random.Random, *, max_amount: int, keep: bool = False
) -> None:
    for group in source.sample(groups, source.randrange(1, 4)):
        worker.attach(group, keep=keep)
    worker.start_work(source.randrange(2**32), max_amount)


def stop(workers: list[Worker]) -> list[dict[str, Any]]:
    for worker in workers:
        worker.ask_to_stop()
    return [worker.report() for worker in workers]


def check_sums(tree: Tree, groups: list[Group], reports: list[dict[str, Any]]) -> None:
    """Each usage is exactly the sum of what the workers report and what the groups hold themselves."""
    assert tree.check() == []
    held: Tally[tuple[str, str]] = Tally()
    for report in reports:
        for path, resource, amount in report["held"]:
            held[path, resource] += amount
    for group in groups:
        inside = [other for other in groups if f"{other.path}/".startswith(f"{group.path.rstrip('/')}/")]
        for resource in RESOURCES:
            stat = group[resource].stat()
            local = held[group.path, resource] + stat["common"]
            assert stat["usage_local"] == local, f"{resource} of {group.path}"
            assert stat["usage"] == sum(
                held[other.path, resource] + other[resource].stat()["common"] for other in inside
            ), f"{resource} of {group.path}"
            assert stat["usage"] <= stat["limit"]
            assert stat["reserved"] == stat["usage"] + stat["stock"] <= stat["limit"]


# ---- all at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 16])
def test_usage_never_exceeds_a_limit_and_is_the_sum_of_what_is_held(
    tree: Tree, workers: int, seed: int, soak: bool
) -> None:
    source = random.Random(seed)
    groups = grow(tree, source, depth=source.choice([1, 4, 16]), groups=20, limit=workers * 20000)
    counters = counters_of(groups)
    limits = {counter: counter.limit for counter in counters}
    with working(tree, groups, source, workers=workers, max_amount=8192) as (team, _):
        deadline = time.monotonic() + (20 if soak else 0.3)
        while time.monotonic() < deadline:
            counter = source.choice(counters)
            if source.random() < 0.5:
                assert counter.usage <= limits[counter]
            else:
                stat = counter.stat()
                assert stat["usage"] <= stat["limit"]
                assert stat["reserved"] == stat["usage"] + stat["stock"] <= stat["limit"]
                assert stat["usage_local"] <= stat["usage"] <= stat["max_usage"] <= stat["limit"]
        reports = stop(team)
        check_sums(tree, groups, reports)
        refused = sum((Tally(report["refused"]) for report in reports), Tally())
        for counter in counters:
            assert counter.failcnt == refused[f"{counter.group.path} {counter.resource}"]
        for worker in team:
            worker.end()
    assert tree.reap() == 0  # they have released their own charges
    assert all(counter.usage == 0 for counter in counters)


def test_kept_charges_stay_with_the_groups_when_their_holders_end(tree: Tree, seed: int) -> None:
    source = random.Random(seed)
    groups = grow(tree, source, depth=4, groups=8, limit=50000)
    with working(tree, groups, source, workers=3, max_amount=4096, keep=True) as (team, progress):
        progress.wait_for([0, 1, 2], 20)
        reports = stop(team)
        usages = {counter: counter.usage for counter in counters_of(groups)}
        team[0].kill()  # they may end in either way
        team[0].bury()
        for worker in team[1:]:
            worker.end()
    assert tree.reap() == 1
    held: Tally[str] = Tally()
    for report in reports:
        for path, resource, amount in report["held"]:
            held[f"{path} {resource}"] += amount
    for counter, usage in usages.items():
        stat = counter.stat()
        assert (stat["usage"], stat["common"]) == (usage, held[f"{counter.group.path} {counter.resource}"])
        assert stat["holders"] == 0


def test_a_new_limit_holds_at_once(tree: Tree, seed: int, soak: bool) -> None:
    source = random.Random(seed)
    groups = grow(tree, source, depth=3, groups=6, limit=1 << 20)
    for counter in counters_of(groups):
        counter.limit = UNLIMITED
    set_, busy = 0, 0
    with working(tree, groups, source, workers=4, max_amount=4096) as (team, _):
        deadline = time.monotonic() + (20 if soak else 0.3)
        while time.monotonic() < deadline or not (set_ and busy):
            counter = source.choice(counters_of(groups))
            old, wanted = counter.limit, int(counter.usage * source.uniform(0.5, 1.5))
            try:
                counter.limit = wanted
            except OSError as error:
                assert error.errno == errno.EBUSY
                busy += 1
                assert counter.limit == old
            else:
                set_ += 1
                assert counter.limit == wanted
                for _ in range(20):
                    assert counter.usage <= wanted
                if source.random() < 0.5:
                    counter.limit = UNLIMITED
        check_sums(tree, groups, stop(team))


# ---- one process at a time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 16])
def test_no_charge_is_refused_while_another_holder_has_stock(tree: Tree, depth: int) -> None:
    limit = 1_000_000
    branch = tree.root
    for level in range(depth):
        branch = branch.mkdir(f"level{level}")
    leaves = [branch.mkdir(f"leaf{number}") for number in range(4)]
    top = tree.root.child("level0")["memory"]
    top.limit = limit
    with ExitStack() as stack:
        team = [stack.enter_context(Worker(tree)) for _ in leaves]
        for worker, leaf in zip(team, leaves, strict=True):
            worker.attach(leaf)
            for _ in range(20):  # they charge and uncharge, and hold 1000 each in the end
                worker.call("charge", 2000)
            worker.call("uncharge", 39000)
        stock = top.stat()["stock"]
        assert (stock > 0) == (tree.batch != 0)
        assert top.usage == 4000
        with pytest.raises(Refused) as caught:
            team[0].call("charge", limit - 4000 + 1)
        assert caught.value.kind == "LimitExceeded"
        assert caught.value.details == {
            "group": "/level0", "resource": "memory", "requested": limit - 3999, "usage": 4000, "limit": limit,
        }  # fmt: skip
        team[0].call("charge", limit - 4000)
        assert (top.usage, top.failcnt) == (limit, 1)
        assert not team[1].call("try_charge", 1)
        team[0].call("uncharge", 1)
        assert team[1].call("try_charge", 1)
        assert (top.usage, top.failcnt) == (limit, 2)
        assert tree.check() == []


def test_a_refusal_names_the_ancestor_and_changes_nothing_elsewhere(tree: Tree) -> None:
    a = tree.root.mkdir("a")
    b = a.mkdir("b")
    c = b.mkdir("c")
    beside = b.mkdir("beside")
    a["memory"].limit = 1000
    b["memory"].limit = 700
    c["memory"].limit = 5000
    seen = ("usage", "usage_local", "common", "holders", "limit", "failcnt", "max_usage", "min_usage", "margin")
    counters = counters_of([tree.root, a, b, c, beside])

    def look() -> dict[Counter, dict[str, int]]:
        return {counter: {key: counter.stat()[key] for key in seen} for counter in counters}

    with Worker(tree) as worker, Worker(tree) as other:
        worker.attach(c)
        other.attach(beside)
        other.call("charge", 300)
        worker.call("charge", 200)
        for amount, refuser in [(201, b), (801, b), (4801, c), (1 << 62, c)]:
            before = look()
            with pytest.raises(Refused) as caught:
                worker.call("charge", amount)
            assert caught.value.details == {
                "group": refuser.path,
                "resource": "memory",
                "requested": amount,
                "usage": refuser["memory"].usage,
                "limit": refuser["memory"].limit,
            }
            before[refuser["memory"]]["failcnt"] += 1
            assert look() == before
        b["memory"].limit = 5000
        before = look()
        with pytest.raises(LimitExceeded) as refused:
            b["memory"].charge_common(501)  # a has 500 left
        assert (refused.value.group, refused.value.usage, refused.value.limit) == ("/a", 500, 1000)
        before[a["memory"]]["failcnt"] += 1
        assert look() == before
        assert worker.call("held") == 200 and other.call("held") == 300


# ---- killed ---------------------------------------------------------------------------------------------------


def test_charges_of_killed_processes_are_released_and_the_others_go_on(tree: Tree, seed: int, soak: bool) -> None:
    source = random.Random(seed)
    groups = grow(tree, source, depth=8, groups=12, limit=100000)
    with working(tree, groups, source, workers=8, max_amount=8192) as (team, progress), ExitStack() as stack:
        for _ in range(30 if soak else 2):
            progress.wait_for([source.randrange(8)], source.randrange(1, 20))
            victims = source.sample(range(8), 4)
            others = [slot for slot in range(8) if slot not in victims]
            for slot in victims:
                team[slot].kill()
            for slot in victims:
                team[slot].bury()
            progress.wait_for(others, 5)  # before any process has noticed
            tree.reap()
            dead = {team[slot].pid for slot in victims}
            assert not dead & {holder.pid for holder in tree.holders()}
            for counter in counters_of(groups):
                assert not dead & {holder.pid for holder in counter.holders()}
            assert tree.check() == []
            for slot in victims:
                team[slot] = stack.enter_context(Worker(tree, progress, slot))
                set_to_work(team[slot], groups, source, max_amount=8192)
        check_sums(tree, groups, stop(team))
        for worker in team:
            worker.end()
    assert all(counter.usage == 0 for counter in counters_of(groups))


def test_charges_of_a_dead_process_are_released_when_their_room_is_needed(tree: Tree) -> None:
    group = tree.root.mkdir("group")
    group["memory"].limit = 1000
    with Worker(tree) as victim, Worker(tree) as other:
        victim.attach(group)
        victim.call("charge", 900)
        other.attach(group)
        assert not other.call("try_charge", 500)
        victim.kill()
        victim.bury()
        deadline = time.monotonic() + 10
        while not other.call("try_charge", 500):  # the engine looks for dead processes only now and then
            assert time.monotonic() < deadline
        assert group["memory"].usage == 500
