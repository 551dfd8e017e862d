"""The records of refusals: their number, their users, and damage in them."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from fsmount import LimitExceeded, Tree
from fsmount.engine import process_start_time, request
from fsmount.shm import Group, Lease
from tests.mounts import eventually
from tests.process_state import sleeps

RECORDS = 256


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with Tree.create(tmp_path / "region", ["memory", "tokens:count"]) as tree:
        yield tree
        assert tree.check() == []


def limited(tree: Tree, name: str, limit: int = 10, uid: int | None = None) -> Group:
    group = tree.root.mkdir_for(name, uid=uid)
    group["memory"].limit = limit
    return group


def refuse(group: Group, amount: int = 11) -> None:
    with pytest.raises(LimitExceeded):
        group["memory"].charge_common(amount)


def asked(group: Group) -> list[str | None]:
    return [refusal.asked for refusal in group["memory"].why()]


def test_the_newest_records_are_kept_and_the_oldest_given_up(tree: Tree) -> None:
    for number in range(RECORDS + 10):
        refuse(limited(tree, f"{number}"))
    assert asked(tree.root) == [f"/{number}" for number in reversed(range(10, RECORDS + 10))]
    assert asked(tree.root.child("5")) == []
    assert asked(tree.root.child("20")) == ["/20"]


def test_the_counter_with_the_most_records_gives_one_up(tree: Tree) -> None:
    others = [limited(tree, f"{number}") for number in range(RECORDS // 2)]
    for other in others:
        refuse(other)
    loud = [limited(tree, name) for name in ("loud", "louder")]
    children = [[group.mkdir(f"{number}") for group in loud] for number in range(RECORDS // 2)]
    for pair in children:
        for child in pair:
            refuse(child)
    assert [len(asked(other)) for other in others] == [1] * len(others)
    kept = children[-RECORDS // 4 :]
    assert asked(tree.root)[: RECORDS // 2] == [child.path for pair in reversed(kept) for child in reversed(pair)]


@pytest.mark.parametrize("users", [1, 2, 5])
def test_users_who_flood_the_records_leave_others_an_equal_share(tree: Tree, users: int) -> None:
    share = RECORDS // (users + 1)
    others = [limited(tree, f"{number}") for number in range(share)]
    for other in others:
        refuse(other)
    for number in range(RECORDS):
        for user in range(users):
            refuse(limited(tree, f"{number} of {user}", uid=4711 + user))
    assert asked(tree.root)[-share:] == [other.path for other in reversed(others)]


def test_a_user_with_all_records_makes_room_for_later_users(tree: Tree) -> None:
    for number in range(RECORDS):
        refuse(limited(tree, f"{number}"))
    later = [limited(tree, f"of {user}", uid=4711 + user) for user in range(RECORDS - 1)]
    for group in later:
        refuse(group)
    assert asked(tree.root) == [*(group.path for group in reversed(later)), f"/{RECORDS - 1}"]


def test_the_user_with_the_most_records_gives_one_up(tree: Tree, seed: int) -> None:
    source = random.Random(seed)
    users = [4711 + source.choice([0, 0, 0, 1, 1, 2, 3]) for _ in range(12)]  # one user for each limit
    limits = [limited(tree, f"{number}", uid=user) for number, user in enumerate(users)]
    loudness = [source.choice([1, 1, 3, 10]) for _ in limits]
    records: list[tuple[int, str]] = []  # a limit and the process that it refused, oldest first
    for number in range(1500):
        limit = source.choices(range(len(limits)), loudness)[0]
        group = limits[limit].mkdir(f"{number}")
        refuse(group)
        if len(records) == RECORDS:
            of_user = Tally([users[limit], *(users[by] for by, _ in records)])
            of_limit = Tally([limit, *(by for by, _ in records)])
            spare = [record for record in records if of_user[users[record[0]]] == max(of_user.values())]
            records.remove(max(spare, key=lambda record: of_limit[record[0]]))
        records.append((limit, group.path))
    assert asked(tree.root) == [path for _, path in reversed(records)]


def test_refusals_that_repeat_are_one_record(tree: Tree) -> None:
    group = limited(tree, "group")
    for _ in range(100):
        refuse(group)
    with group.attach() as attached:
        for _ in range(3):
            assert not attached["memory"].try_charge(11)
        assert not attached["memory"].charge_nofail(12)  # counts the repeats before it
    assert [(refusal.times, refusal.by, refusal.charged) for refusal in group["memory"].why()] == [
        (1, "process", True),
        (3, "process", False),
        (100, "group", False),
    ]
    assert group["tokens"].why() == []


@pytest.mark.parametrize("how", ["charge", "group", "whole", "lease", "nofail"])
def test_a_record_shows_the_last_refusal_even_if_it_follows_at_once(tree: Tree, how: str) -> None:
    group = limited(tree, "group")
    lease = Lease(group, ("memory", "tokens"), os.getpid(), process_start_time(os.getpid()))
    with group.attach() as attached:
        memory = attached["memory"]
        ways: dict[str, Callable[[int], object]] = {
            "charge": memory.try_charge,
            "nofail": memory.charge_nofail,
            "group": group["memory"].charge_common,
            "whole": lambda amount: attached.charge(memory=amount, tokens=1),
            "lease": lambda amount: lease.change({"memory": amount}),
        }
        for last, amount in enumerate((13, 30, 30, 20, 11, 11, 1 << 50, 14), 1):
            with suppress(LimitExceeded):
                assert not ways[how](amount)
            (refusal,) = group["memory"].why()
            if how != "nofail":
                assert (refusal.amount, refusal.short) == (amount, amount - 10)
            assert refusal.times <= last
        assert refusal.amount == 14
        assert group["memory"].failcnt == 8
    lease.close()


def test_a_record_shows_the_limit_that_refused_last(tree: Tree) -> None:
    group = limited(tree, "group")
    with group.attach() as attached:
        for limit in (10, 9, 12):
            group["memory"].limit = limit
            assert not attached["memory"].try_charge(13)
            (refusal,) = group["memory"].why()
            assert (refusal.limit, refusal.short) == (limit, 13 - limit)


def test_the_last_refusal_comes_first_even_if_it_follows_at_once(tree: Tree) -> None:
    first, second = limited(tree, "first"), limited(tree, "second")
    with first.attach() as one, second.attach() as other:
        for group, amount in ((one, 13), (other, 14), (one, 15), (other, 16), (one, 17)):
            number = group["memory"].last_refusal
            assert not group["memory"].try_charge(amount)
            assert group["memory"].last_refusal > number, "a poll reports it"
        assert [(refusal.asked, refusal.amount) for refusal in tree.root["memory"].why()] == [
            ("/first", 17),
            ("/second", 16),
        ]


def test_records_stay_consistent_when_threads_are_refused_different_amounts(tree: Tree) -> None:
    group = limited(tree, "group")
    with group.attach() as attached, ThreadPoolExecutor(4) as pool:
        memory = attached["memory"]
        memory.charge(10)

        def work(thread: int) -> None:
            for amount in range(2000):
                assert not memory.try_charge(1 + 4 * amount + thread)

        list(pool.map(work, range(4)))
        assert not memory.try_charge(12345)
        (refusal,) = group["memory"].why()
        assert (refusal.amount, refusal.usage, refusal.limit, refusal.short) == (12345, 10, 10, 12345)
        assert refusal.times <= 8001
        assert group["memory"].failcnt == 8001


def test_each_process_has_its_own_record(tree: Tree) -> None:
    group = limited(tree, "group")
    with group.attach() as attached:
        assert not attached["memory"].try_charge(11)
        child = os.fork()
        if child == 0:
            attached["memory"].try_charge(12)
            os._exit(0)
        os.waitpid(child, 0)
        assert [(refusal.pid, refusal.amount) for refusal in group["memory"].why()] == [(child, 12), (os.getpid(), 11)]


def test_a_record_says_that_only_some_of_very_many_holders_were_visited(tree: Tree) -> None:
    wide = limited(tree, "wide", 1 << 40)
    for number in range(5000):
        wide.mkdir(f"{number}")["memory"].charge_common(1)
    refuse(wide, 1 << 40)
    (refusal,) = wide["memory"].why()
    assert (refusal.looked, len(refusal.largest)) == ("some", 3)
    assert {held.held for held in refusal.largest} == {1}


def test_a_subtree_with_less_than_the_largest_holders_is_skipped(tree: Tree) -> None:
    wide = limited(tree, "wide", 1 << 40)
    for size in (10, 30, 20):
        wide.mkdir(f"large {size}")["memory"].charge_common(size)
    small = wide.mkdir("small")
    for number in range(10):
        small.mkdir(f"{number}")["memory"].charge_common(1)
    small["memory"].charge_common(3)
    refuse(small, 1 << 40)
    (refusal,) = wide["memory"].why()
    assert refusal.looked == "all"
    assert [(held.held, held.group) for held in refusal.largest] == [
        (30, "/wide/large 30"),
        (20, "/wide/large 20"),
        (10, "/wide/large 10"),
    ]


def test_a_record_shows_the_new_name_of_a_group_and_none_of_a_removed_one(tree: Tree) -> None:
    parent = limited(tree, "parent")
    child = parent.mkdir("child")
    refuse(child)
    parent.rename("child", "renamed")
    assert asked(parent) == ["/parent/renamed"]
    child.remove()
    assert asked(parent) == [None]
    again = parent.mkdir("again")
    assert again.id & 0xFFFFFFFF == child.id & 0xFFFFFFFF
    assert asked(again) == []
    again.remove()
    parent.remove()
    assert asked(tree.root) == []


def test_another_process_that_opens_the_region_reads_the_records(tree: Tree) -> None:
    refuse(limited(tree, "group"))
    before = tree.root["memory"].why()
    with Tree.open(tree.path) as other:
        assert other.root["memory"].why() == before


def test_a_probe_above_the_maximum_is_short_by_the_whole_difference(tree: Tree) -> None:
    group = limited(tree, "group")
    with group.attach() as attached:
        attached["memory"].charge_nofail(25)
        probe = attached["memory"].probe((1 << 63) - 1)
        assert (probe.fits, probe.short, probe.margin) == (False, (1 << 63) - 1 + 15, 0)
        assert (attached["memory"].probe(0).fits, attached["memory"].probe(1).group) == (True, "/group")
        assert tree.root["memory"].probe(1).fits
        assert attached["memory"].stat()["failcnt"] == 1


def test_a_probe_ignores_waiting_requests(tree: Tree) -> None:
    group = limited(tree, "group")
    with group.attach() as attached:
        memory = attached["memory"]
        memory.charge(5)
        waiting = request([memory], [6])
        assert waiting is not None
        assert (memory.probe(5).fits, memory.probe(6).fits) == (True, False)
        assert (memory.try_charge(5), waiting.end()) == (True, False)


def test_a_refusal_wakes_a_thread_that_waits_for_events(tree: Tree) -> None:
    group = limited(tree, "group")
    tree.listen(True)
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(tree.await_event(3600.0)), daemon=True)
    thread.start()
    eventually(lambda: sleeps(thread.native_id or 0), what="the thread waits")
    refuse(group)
    thread.join(60)
    assert heard == [True]
