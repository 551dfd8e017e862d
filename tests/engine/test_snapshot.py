"""Every group in one pass, all of one moment, and never along a damaged link.

test_model.py compares each row with the values of its group after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest

from fsmount import RegionCorrupt, Tree
from fsmount.protocol.listings import CounterSnapshot
from tests.engine import test_check
from tests.engine.test_check import FAR, Scene
from tests.engine.workers import Progress, Worker

furnished, scene = test_check.furnished, test_check.scene


@pytest.fixture
def tree() -> Iterator[Tree]:
    with Tree.create(resources=["memory", "tokens:count"], groups=8) as tree:
        yield tree


def by_name(rows: Iterable[CounterSnapshot]) -> dict[str, CounterSnapshot]:
    return {row.name: row for row in rows}


def test_a_tree_with_only_a_root_has_one_row(tree: Tree) -> None:
    (root,) = tree.snapshot("memory")
    assert (root.id, root.parent, root.name, root.usage) == (tree.root.id, tree.root.id, "", 0)


def test_parents_come_before_their_children_and_name_them(tree: Tree) -> None:
    web = tree.root.mkdir("web")
    late = tree.root.mkdir("late")
    api = web.mkdir("api")
    rows = tree.snapshot("memory")
    assert [(row.id, row.parent, row.name) for row in rows] == [
        (tree.root.id, tree.root.id, ""),
        (web.id, tree.root.id, "web"),
        (api.id, web.id, "api"),
        (late.id, tree.root.id, "late"),
    ]


def test_a_removed_group_is_not_in_the_snapshot_and_its_successor_is(tree: Tree) -> None:
    for name in ("first", "last"):
        tree.root.mkdir(name)
    removed = tree.root.child("first")
    tree.root.rmdir("first")
    assert [row.name for row in tree.snapshot("memory")] == ["", "last"]
    new = tree.root.child("last").mkdir("new")
    rows = by_name(tree.snapshot("memory"))
    assert rows["new"].id == new.id != removed.id
    assert new.id & 0xFFFFFFFF == removed.id & 0xFFFFFFFF, "it was to get the other's place"


def test_a_full_tree_is_in_the_snapshot(tree: Tree) -> None:
    group = tree.root
    for number in range(7):
        group = group.mkdir(str(number))
    assert [row.name for row in tree.snapshot("tokens")] == ["", *map(str, range(7))]


def test_a_name_is_any_bytes(tree: Tree) -> None:
    names = {b"\xff\xfe".decode(errors="surrogateescape"), "büro", "x" * 255}
    for name in names:
        tree.root.mkdir(name)
    assert names == by_name(tree.snapshot("memory")).keys() - {""}


def test_each_resource_has_its_own_snapshot(tree: Tree) -> None:
    tree.root["tokens"].charge_common(3)
    assert [tree.snapshot(resource)[0].usage for resource in ("memory", "tokens")] == [0, 3]
    with pytest.raises(KeyError, match="there are: memory, tokens"):
        tree.snapshot("slots")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("limit", [100_000_000, 20_000], ids=["with room", "near the limit"])
def test_no_usage_is_below_the_sum_of_its_children_while_others_charge(
    tree: Tree, seed: int, soak: bool, limit: int
) -> None:
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        web = tree.root.mkdir("web")
        groups = [web, web.mkdir("api"), web.mkdir("static")]
        web["memory"].limit = limit
        workers = [stack.enter_context(Worker(tree, progress, slot)) for slot in range(2)]
        for worker in workers:
            for group in groups:
                worker.attach(group)
            worker.start_work(seed + worker.slot, 1000)
        progress.wait_for([0, 1], 1)
        for number in range(20_000 if soak else 1000):
            rows = by_name(tree.snapshot("memory"))
            assert rows[""].usage >= rows["web"].usage >= rows["api"].usage + rows["static"].usage, f"round {number}"
            assert rows["web"].usage <= limit
        progress.wait_for([0, 1], 1)
        held = [report["held"] for report in (worker.stop_work() for worker in workers)]
        total = sum(amount for report in held for _, resource, amount in report if resource == "memory")
        assert by_name(tree.snapshot("memory"))[""].usage == total
        for worker in workers:
            worker.end()


def to_itself(_: Scene, index: int) -> int:
    return index


def out_of_range(_: Scene, __: int) -> int:
    return FAR


def nothing(_: Scene, __: int) -> int:
    return 0


@pytest.mark.parametrize(
    ("at", "where", "value"),
    [
        *[("group.first_child", test_check.group("/web"), value) for value in (to_itself, out_of_range, nothing)],
        *[("group.next_sibling", test_check.group("/web/api"), value) for value in (to_itself, out_of_range, nothing)],
        ("counter.reserved", test_check.counter("/web/api"), nothing),
    ],
)
def test_a_damaged_link_is_an_error_and_the_next_snapshot_finds_it_repaired(
    scene: Scene, at: str, where: Callable[[Scene], int], value: Callable[[Scene, int], int]
) -> None:
    def rows() -> dict[str, CounterSnapshot]:
        # a repair makes all batches small again
        return {name: row._replace(batch=0) for name, row in by_name(scene.tree.snapshot("memory")).items()}

    good = rows()
    index = where(scene)
    scene.put(at, index, value(scene, index))
    with pytest.raises(RegionCorrupt):
        scene.tree.snapshot("memory")
    assert rows() == good


def test_a_root_of_another_generation_is_an_error(scene: Scene) -> None:
    scene.put("group.stamp", 0, test_check.with_state(1, test_check.LIVE))
    with pytest.raises(RegionCorrupt):
        scene.tree.snapshot("memory")


def test_an_open_cell_of_no_counter_is_an_error(scene: Scene) -> None:
    scene.put("cell.counter", scene.cell("keeping", "/web"), FAR)
    with pytest.raises(RegionCorrupt, match=f"belongs to counter {FAR}"):
        scene.tree.snapshot("memory")
