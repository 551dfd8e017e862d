"""Making, opening and closing a tree that is not mounted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fsmount
from fsmount import Tree
from tests.shm.conftest import run_python


def test_resources_have_a_name_and_a_unit(tree: Tree) -> None:
    assert tree.resources == {"memory": "bytes", "tokens": "count"}
    with Tree.create() as default:
        assert default.resources == {"memory": "bytes"}
    with Tree.create(resources=["a:bytes", "b:count", "c"]) as three:
        assert list(three.resources.items()) == [("a", "bytes"), ("b", "count"), ("c", "bytes")]


@pytest.mark.parametrize(
    "resources",
    [[], [""], [":count"], ["a:"], ["a:words"], ["a:count:count"], ["a", "a"], ["a", "a:count"], ["a/b"], ["a b"],
     ["a.b"], ["a\n"], ["a\0b"], ["x" * 64], [f"r{n}" for n in range(33)], ["a=b"], ["a,b:count"], ["-a"], ["a\u200b"],
     ["a\xa0b"], ["a\x9bm"], ["a\udcff"], ["é" * 32], ["a", "a.b"], [":bytes"], ["a:Bytes"], ["a:bits"]],
)  # fmt: skip
def test_a_bad_resource_is_a_value_error(resources: list[str]) -> None:
    with pytest.raises(ValueError, match="resource"):
        Tree.create(resources=resources)
    with pytest.raises(TypeError, match="a list"):
        Tree.create(resources="memory")


@pytest.mark.parametrize(
    "name", ["a-b", "lease", "metrics", "wait", "give", "max", "0", "+", "é", "%41", "Memory", "x" * 63]
)
def test_a_resource_that_is_accepted_can_be_named_everywhere(name: str) -> None:
    with Tree.create(resources=[f"{name}:count"]) as tree, tree.root.attach() as group:
        group.charge({name: 2})
        assert group[name].usage == 2


def test_thirty_two_resources_are_counted() -> None:
    with Tree.create(resources=[f"r{n}" for n in range(32)]) as tree:
        for n in range(32):
            tree.root[f"r{n}"].charge(n)
        assert [tree.root[name].usage for name in tree.root.resources] == list(range(32))


@pytest.mark.parametrize("capacity", ["groups", "holders", "cells"])
def test_a_capacity_of_zero_is_a_value_error(capacity: str) -> None:
    arguments: dict[str, int] = {capacity: 0}
    with pytest.raises(ValueError, match=f"capacity.*{capacity}"):
        Tree.create(None, ["memory"], **arguments)


@pytest.mark.parametrize("capacity", ["groups", "holders", "cells"])
def test_a_capacity_that_no_region_can_have_is_refused(capacity: str) -> None:
    for wrong in (-1, 2**32, 2**64):
        with pytest.raises(ValueError, match=f"{capacity} cannot be {wrong}"):
            Tree.create(**{capacity: wrong})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{capacity} is an int, not '5'"):
        Tree.create(**{capacity: "5"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{capacity} is an int, not True"):
        Tree.create(None, ["memory"], **{capacity: True})


@pytest.mark.parametrize("resources", [None, 5, "memory", b"memory", [5], [b"memory"], [None]])
def test_invalid_resources_are_refused(resources: Any) -> None:
    with pytest.raises(TypeError, match=r"a list, such as|given as text"):
        Tree.create(resources=resources)


def test_a_path_may_be_text_bytes_or_path_like(region_path: Path) -> None:
    Tree.create(os.fsencode(region_path)).close()
    for path in (region_path, str(region_path), os.fsencode(region_path)):
        with Tree.open(path) as tree:
            assert tree.path == str(region_path)
    for wrong in (5, None, [], object()):
        with pytest.raises(TypeError, match=f"a path is a str, bytes or os.PathLike, not {type(wrong).__name__}"):
            Tree.open(wrong)  # type: ignore[arg-type]
    for action in (Tree.create, Tree.open):
        with pytest.raises(ValueError, match="NUL"):
            action(f"{region_path}.other\0else")
    assert not Path(f"{region_path}.other").exists()


def test_batch_is_auto_or_an_amount() -> None:
    with Tree.create() as tree:
        assert tree.batch == "auto"
        tree.batch = 4096
        assert tree.batch == 4096
        tree.batch = "auto"
        assert tree.batch == "auto"
        with pytest.raises(ValueError, match="always"):
            tree.batch = "always"
        with pytest.raises(ValueError, match="-1"):
            tree.batch = -1
    with pytest.raises(ValueError, match="'0'"):
        Tree.create(batch="0")


def test_with_a_batch_of_0_there_is_no_stock() -> None:
    with Tree.create(batch=0) as tree:
        assert tree.batch == 0
        memory = tree.root["memory"]
        memory.charge(5)
        memory.uncharge(2)
        assert (memory.stat()["stock"], memory.stat()["error_bound"], memory.max_usage) == (0, 0, 5)


def test_a_region_is_a_private_file_that_is_sparse_and_stays(region_path: Path) -> None:
    with Tree.create(region_path) as tree:
        assert tree.path == str(region_path)
        tree.root.mkdir("web")["memory"].limit = 5
        assert stat.S_IMODE(region_path.stat().st_mode) == 0o600
        assert region_path.stat().st_blocks * 512 < 4 << 20 < region_path.stat().st_size
    with Tree.open(region_path) as again:
        assert again.root.child("web")["memory"].limit == 5


def test_a_taken_path_is_eexist(region_path: Path) -> None:
    region_path.write_text("mine")
    with pytest.raises(FileExistsError) as caught:
        Tree.create(region_path)
    assert caught.value.filename == str(region_path)
    assert region_path.read_text() == "mine"


def test_two_openers_of_a_region_share_one_tree(region_path: Path) -> None:
    with Tree.create(region_path) as one, Tree.open(str(region_path)) as two:
        assert one.id == two.id
        one.root.mkdir("web")["memory"].charge(5)
        assert two.root.child("web")["memory"].usage == 5
        assert one.root.child("web") != two.root.child("web")


def test_trees_have_ids_of_their_own() -> None:
    with Tree.create() as one, Tree.create() as two:
        assert one.id != two.id


def test_an_unnamed_tree_can_be_opened_by_another_process_while_this_one_lives(tree: Tree) -> None:
    tree.root["memory"].charge(5)
    assert tree.path.startswith(f"/proc/{os.getpid()}/fd/")
    program = """if True:
        import sys, fsmount
        with fsmount.Tree.open(sys.argv[1]) as tree:
            tree.root["memory"].charge_common(6)
            print(tree.root["memory"].usage)
    """
    assert run_python(program, tree.path) == "11\n"
    assert tree.root["memory"].usage == 11


def test_a_file_that_is_no_region_is_not_opened(region_path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Tree.open(region_path)
    assert missing.value.filename == str(region_path)
    region_path.write_bytes(b"")
    for content in (b"", b"x" * 100, os.urandom(100_000)):
        region_path.write_bytes(content)
        with pytest.raises(OSError) as caught:
            Tree.open(region_path)
        assert caught.value.errno == errno.EPROTO
        assert str(region_path) in str(caught.value)
    with pytest.raises(IsADirectoryError):
        Tree.open(tmp_path)


def test_a_truncated_region_is_not_opened(region_path: Path) -> None:
    Tree.create(region_path).close()
    os.truncate(region_path, region_path.stat().st_size // 2)
    with pytest.raises(OSError) as caught:
        Tree.open(region_path)
    assert caught.value.errno == errno.EPROTO


def test_after_close_everything_is_tree_gone(region_path: Path) -> None:
    tree = Tree.create(region_path)
    group = tree.root.mkdir("web")
    attached = group.attach()
    memory = attached["memory"]
    memory.charge(5)
    tree.close()
    tree.close()
    uses: list[Callable[[], object]] = [
        lambda: tree.id, lambda: tree.batch, tree.reap, tree.holders, tree.check, lambda: tree.daemon,
        lambda: tree.mountpoint, lambda: group.path, lambda: group.name, lambda: group.exists, group.children,
        lambda: group.mkdir("a"), lambda: group.child("a"), lambda: group.remove(), group.attach, lambda: memory.usage,
        lambda: memory.limit, lambda: memory.margin, memory.stat, memory.holders, lambda: memory.charge(1),
        lambda: memory.try_charge(1), lambda: memory.charge_nofail(1), lambda: memory.uncharge(1),
        lambda: memory.give(1), lambda: memory.charge_common(1), lambda: tree.root["memory"].charge(1),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(fsmount.TreeGone) as caught:
            use()
        assert caught.value.errno == errno.ENOTCONN
        assert caught.value.region == str(region_path)
    assert memory.held == 0
    attached.close()
    assert tree.resources == {"memory": "bytes"}
    assert "closed" in repr(tree)


def test_close_frees_descriptors_and_mappings(region_path: Path) -> None:
    def used() -> tuple[int, int]:
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum(str(region_path) in line for line in maps)

    before = used()
    with Tree.create(region_path) as tree:
        tree.root["memory"].charge(1)
        assert used() == (before[0] + 1, 1)
    assert used() == before
    tree = Tree.open(region_path)
    del tree
    assert used() == before


def test_a_scribbled_region_is_region_corrupt(region_path: Path) -> None:
    tree = Tree.create(region_path, cells=64)
    memory = tree.root["memory"]
    memory.charge(5)
    with region_path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)  # the cells are at the end
        file.write(b"\x5a" * 4096)
    with pytest.raises(fsmount.RegionCorrupt) as caught:
        memory.holders()
    assert caught.value.errno == errno.EUCLEAN
    assert caught.value.region == str(region_path)
    assert caught.value.found and caught.value.found in str(caught.value)
    tree.region.close()


def test_check_finds_nothing_in_a_tree_at_work(tree: Tree) -> None:
    tree.root.mkdir("web")["memory"].charge(5)
    assert tree.check() == [] == tree.repair()


def test_the_daemon_publishes_its_mount_point_and_paths_begin_there(tree: Tree) -> None:
    group = tree.root.mkdir("web")
    assert (tree.daemon, tree.mountpoint) == (None, None)
    tree.serve("/run/counters")
    daemon = tree.daemon
    assert daemon is not None
    assert (daemon.pid, daemon.mountpoint, daemon.alive) == (os.getpid(), "/run/counters", True)
    assert (tree.mountpoint, tree.root.path, group.path) == ("/run/counters", "/run/counters", "/run/counters/web")
    group["memory"].limit = 0
    with pytest.raises(fsmount.LimitExceeded) as caught:
        group["memory"].charge(1)
    assert caught.value.group == "/run/counters/web"
    tree.serve(None)
    assert (tree.daemon, group.path) == (None, "/web")
