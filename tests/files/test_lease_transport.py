"""attach(transport="files"): the Python interface through files alone, on a real mount."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

import fsmount
from fsmount.files import LeaseCounter, LeaseGroup
from tests.holder_process import HolderProcess
from tests.mounts import AS_ROOT, STAT_KEYS, UNLIMITED, GroupFiles, Mount, as_user, eventually, fails_with, mounted

pytestmark = pytest.mark.any_user


def attach(group: GroupFiles, **options: Any) -> LeaseGroup:
    attached = fsmount.attach(group.path, transport="files", **options)
    assert isinstance(attached, LeaseGroup)
    return attached


@pytest.fixture
def attached(group: GroupFiles) -> Iterator[LeaseGroup]:
    with attach(group) as attached:
        yield attached


@pytest.fixture
def memory(attached: LeaseGroup) -> LeaseCounter:
    return attached["memory"]


# ---- charging


def test_charges_are_held_until_they_are_uncharged(group: GroupFiles, mount: Mount, memory: LeaseCounter) -> None:
    memory.charge(4096)
    memory.charge(0)
    assert memory.try_charge(4) is True
    assert (memory.held, memory.usage, group.usage, mount.root.usage) == (4100, 4100, 4100, 4100)
    memory.uncharge(4100)
    memory.uncharge(0)
    assert (memory.held, group.usage) == (0, 0)


def test_this_process_is_a_holder(group: GroupFiles, memory: LeaseCounter) -> None:
    memory.charge(7)
    assert [(line.pid, line.held) for line in group.holders()] == [(os.getpid(), 7)]
    assert memory.stat()["holders"] == 1


def test_it_does_not_hold_charges_of_others(group: GroupFiles, memory: LeaseCounter) -> None:
    assert memory.held == 0
    with pytest.raises(fsmount.NotHeld):
        memory.uncharge(1)
    assert group.usage == 0


def test_a_refusal_names_the_ancestor_and_changes_nothing(group: GroupFiles) -> None:
    child = group.mkdir("a").mkdir("b")
    group.set_limit(1000)
    with attach(child) as attached:
        memory = attached["memory"]
        memory.charge(900)
        with pytest.raises(fsmount.LimitExceeded) as raised:
            memory.charge(101)
        refusal = raised.value
        assert refusal.errno == errno.ENOMEM
        assert (refusal.group, refusal.resource) == (str(group.path), "memory")
        assert (refusal.requested, refusal.usage, refusal.limit) == (101, 900, 1000)
        assert memory.try_charge(101) is False
        assert (memory.held, group.usage) == (900, 900)
        assert (group.failcnt, child.failcnt) == (2, 0)
        memory.charge(100)


def test_of_two_limits_the_lower_one_is_named(group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(50)
    child.set_limit(100)
    with attach(child) as attached, pytest.raises(fsmount.LimitExceeded) as raised:
        attached["memory"].charge(101)
    assert raised.value.group == str(child.path)
    with attach(child) as attached, pytest.raises(fsmount.LimitExceeded) as raised:
        attached["memory"].charge(51)
    assert raised.value.group == str(group.path)


def test_nofail_always_charges_and_tells_whether_a_limit_is_passed(group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(100)
    with attach(child) as attached:
        memory = attached["memory"]
        assert memory.charge_nofail(100) is True
        assert memory.charge_nofail(1) is False
        assert (memory.held, group.usage, group.failcnt) == (101, 101, 1)


def test_uncharging_more_than_is_held_changes_nothing(group: GroupFiles, memory: LeaseCounter) -> None:
    memory.charge(10)
    group.charge(100)
    with pytest.raises(fsmount.NotHeld) as raised:
        memory.uncharge(11)
    assert raised.value.errno == errno.ERANGE
    assert (raised.value.resource, raised.value.requested, raised.value.held) == ("memory", 11, 10)
    assert group.usage == 110


def test_give_and_take_move_between_the_attachment_and_the_group(group: GroupFiles, memory: LeaseCounter) -> None:
    memory.charge(10)
    memory.give(4)
    assert (memory.held, memory.stat()["common"], group.usage) == (6, 4, 10)
    memory.take(1)
    assert (memory.held, memory.stat()["common"]) == (7, 3)
    with pytest.raises(fsmount.NotHeld) as raised:
        memory.give(8)
    assert raised.value.held == 7
    with pytest.raises(fsmount.NotHeld) as raised:
        memory.take(4)
    assert raised.value.held == 3
    assert (memory.held, group.usage) == (7, 10)


def test_hold_charges_inside_and_uncharges_after(group: GroupFiles, memory: LeaseCounter) -> None:
    with memory.hold(1 << 20):
        assert (memory.held, group.usage) == (1 << 20, 1 << 20)
    assert group.usage == 0
    with pytest.raises(KeyError), memory.hold(5):
        raise KeyError
    assert group.usage == 0
    group.set_limit(4)
    with pytest.raises(fsmount.LimitExceeded), memory.hold(5):
        pytest.fail("inside")


@pytest.mark.parametrize(
    "name", ["charge", "try_charge", "charge_nofail", "uncharge", "give", "take", "hold", "probe", "charge_common",
             "uncharge_common", "limit", "soft_limit"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("amount", "error"),
    [
        (-1, ValueError),
        (2**63, OverflowError),
        (1.0, TypeError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_an_invalid_amount_is_refused(
    group: GroupFiles, memory: LeaseCounter, name: str, amount: object, error: type[Exception]
) -> None:
    do = partial(setattr, memory, name) if "limit" in name else getattr(memory, name)
    with pytest.raises(error):
        do(amount)
    assert group.holders() == []


@pytest.mark.parametrize("operation", ["charge", "uncharge", "hold"])
def test_an_amount_without_a_resource_is_a_type_error(group: GroupFiles, attached: LeaseGroup, operation: str) -> None:
    for wrong in (3, True, "memory", [("memory", 1)]):
        with pytest.raises(TypeError, match="name a resource and an amount"):
            getattr(attached, operation)(wrong)
    with pytest.raises(TypeError, match="an amount is an int, not bool"):
        getattr(attached, operation)(memory=True)
    assert group.holders() == []


def test_resources_are_apart(group: GroupFiles, attached: LeaseGroup) -> None:
    attached["memory"].charge(5)
    attached["tokens"].charge(7)
    assert (group.usage, group.number("usage", "tokens")) == (5, 7)
    assert (attached["memory"].unit, attached["tokens"].unit) == ("bytes", "count")
    with pytest.raises(KeyError, match="memory, tokens"):
        attached["disk"]


def test_threads_share_a_counter(group: GroupFiles, memory: LeaseCounter) -> None:
    def work() -> None:
        for _ in range(50):
            memory.charge(3)
            memory.uncharge(2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (memory.held, group.usage) == (200, 200)


# ---- whole requests


def test_a_hold_of_several_resources_is_there_at_once_and_gone_at_once(group: GroupFiles, attached: LeaseGroup) -> None:
    with attached.hold(memory=4096, tokens=3):
        assert (attached["memory"].held, attached["tokens"].held) == (4096, 3)
        assert (group.usage, group.number("usage", "tokens")) == (4096, 3)
        assert [line.pid for line in group.holders()] == [os.getpid()]
        attached["memory"].uncharge(96)
        attached.charge(memory=96)
    assert (group.usage, group.number("usage", "tokens")) == (0, 0)


def test_a_refused_multi_resource_request_changes_nothing_and_says_why(group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(10, "tokens")
    with attach(child) as attached:
        attached.charge(memory=5, tokens=7)
        with pytest.raises(fsmount.LimitExceeded) as refused:
            attached.charge(memory=5, tokens=4)
        assert (refused.value.group, refused.value.resource) == (str(group.path), "tokens")
        assert (refused.value.requested, refused.value.usage, refused.value.limit) == (4, 7, 10)
        with pytest.raises(fsmount.NotHeld) as caught:
            attached.uncharge(memory=6, tokens=7)
        assert (caught.value.resource, caught.value.requested, caught.value.held) == ("memory", 6, 5)
        assert (group.usage, group.number("usage", "tokens"), group.failcnt) == (5, 7, 0)
        with pytest.raises(TypeError):
            attached.charge()
        with pytest.raises(KeyError):
            attached.charge(disk=1, memory=1)


def test_the_group_holds_the_kept_charges_of_a_multi_resource_request(group: GroupFiles) -> None:
    with attach(group, on_exit="keep") as attached:
        attached.charge(memory=5, tokens=7)
        attached.uncharge(memory=1, tokens=1)
    assert (group.stat()["common"], group.stat("tokens")["common"]) == (4, 6)


def test_a_child_that_is_forked_inside_a_hold_leaves_it_to_its_parent(group: GroupFiles, attached: LeaseGroup) -> None:
    hold = attached.hold(memory=5, tokens=7)
    with hold:
        child = os.fork()
        if child == 0:
            hold.__exit__(None, None, None)
            os._exit(attached["tokens"].held)
        assert os.waitpid(child, 0) == (child, 0)
        assert (group.usage, group.number("usage", "tokens")) == (5, 7)


def test_a_hold_can_be_entered_again_inside_after_and_by_several_threads(
    group: GroupFiles, attached: LeaseGroup
) -> None:
    hold = attached.hold(memory=5)
    with hold, hold:
        assert group.usage == 10
    assert group.usage == 0

    def work() -> None:
        for _ in range(20):
            with hold:
                assert group.usage >= 5

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert group.usage == 0


def test_a_hold_that_is_entered_and_lost_stays_charged_like_any_charge(group: GroupFiles, attached: LeaseGroup) -> None:
    attached.hold(memory=5).__enter__()
    gc.collect()
    assert (attached["memory"].held, group.usage) == (5, 5)


# ---- values and settings


def test_its_values_are_those_of_the_files(group: GroupFiles, memory: LeaseCounter) -> None:
    group.set_limit(100)
    group.write("soft_limit", 20)
    memory.charge(30)
    memory.uncharge(5)
    assert (memory.usage, memory.limit, memory.soft_limit, memory.max_usage, memory.failcnt) == (25, 100, 20, 30, 0)
    assert (memory.margin, memory.soft_limit_excess) == (75, 5)
    assert list(memory.stat()) == STAT_KEYS
    assert memory.stat() == group.stat()
    memory.reset_max_usage()
    assert memory.max_usage == 25
    assert not memory.try_charge(76)
    assert memory.failcnt == 1
    memory.reset_failcnt()
    assert memory.failcnt == 0
    assert memory.events() == {"limit": 1, "soft_limit": 1, "threshold": 0}


def test_limits_can_be_set(group: GroupFiles, memory: LeaseCounter) -> None:
    memory.charge(30)
    memory.limit = 30
    memory.soft_limit = 7
    assert (group.limit, group.soft_limit) == (30, 7)
    with pytest.raises(OSError, match="the usage is 30") as raised:
        memory.limit = 29
    assert (raised.value.errno, group.limit) == (errno.EBUSY, 30)
    memory.limit = fsmount.UNLIMITED
    assert group.limit == UNLIMITED
    with pytest.raises(ValueError):
        memory.limit = -1


# ---- groups


def test_a_group_knows_its_place(group: GroupFiles, mount: Mount) -> None:
    child = group.mkdir("child")
    with attach(child) as attached:
        assert (attached.path, attached.name, attached.resources) == (str(child.path), "child", ("memory", "tokens"))
        assert attached.exists and attached.children() == []
        parent = attached.parent
        assert parent is not None and (parent.path, parent.name) == (str(group.path), group.path.name)
        assert parent.children() == [attached] and list(parent) == ["memory", "tokens"]
        root = parent.parent
        assert root is not None and (root.path, root.name, root.parent) == (str(mount.path), "", None)
        assert {parent, parent.children()[0]} == {attached, parent}


def test_a_group_that_was_not_attached_attaches_with_its_first_charge(group: GroupFiles, attached: LeaseGroup) -> None:
    group.mkdir("child")
    (child,) = attached.children()
    child["memory"].charge(5)
    assert group.child("child").holders()[0].pid == os.getpid()
    child.close()
    assert group.usage == 0


def test_a_rename_changes_nothing_but_the_path(group: GroupFiles) -> None:
    old = group.mkdir("old")
    with attach(old) as attached:
        memory = attached["memory"]
        memory.charge(5)
        os.rename(group / "old", group / "new")
        group.mkdir("old")
        memory.charge(5)
        assert (attached.path, attached.name, memory.usage) == (str(group / "new"), "new", 10)


def test_a_removed_group_is_group_removed(group: GroupFiles) -> None:
    child = group.mkdir("child")
    attached = attach(child)
    memory = attached["memory"]
    memory.charge(5)
    memory.uncharge(5)
    attached.close()
    attached = attach(child)
    memory = attached["memory"]
    os.rmdir(child.path)
    assert not attached.exists
    for action in (lambda: memory.charge(1), lambda: memory.usage, memory.stat, attached.children):
        with pytest.raises(fsmount.GroupRemoved) as raised:
            action()
        assert (raised.value.errno, raised.value.group) == (errno.ENODEV, str(child.path))
    attached.close()


# ---- the end of an attachment


def test_close_releases_before_it_returns(group: GroupFiles) -> None:
    for _ in range(20):
        with attach(group) as attached:
            attached["memory"].charge(5)
        assert group.usage == 0


def test_close_moves_charges_to_the_group_with_keep(group: GroupFiles) -> None:
    with attach(group, on_exit="keep") as attached:
        attached["memory"].charge(5)
        attached["memory"].uncharge(1)
    assert (group.usage, group.stat()["common"]) == (4, 4)
    with pytest.raises(ValueError, match="release"):
        attach(group, on_exit="never")


def test_a_closed_attachment_can_be_read_but_not_charged(group: GroupFiles) -> None:
    attached = attach(group)
    memory = attached["memory"]
    memory.charge(5)
    attached.close()
    attached.close()
    assert attached.closed
    assert (memory.held, memory.usage, attached.path) == (0, 0, str(group.path))
    with pytest.raises(ValueError, match="closed"):
        memory.charge(1)
    assert group.usage == 0


def close_before(attached: LeaseGroup, call: object) -> None:
    """Another thread closes the attachment right before this thread makes such a call."""

    def close(_frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is call:
            sys.setprofile(None)
            closer = threading.Thread(target=attached.close)
            closer.start()
            closer.join()

    sys.setprofile(close)


@pytest.mark.parametrize(
    ("ask", "call"),
    [
        (lambda attached: attached.path, os.readlink),
        (lambda attached: attached["memory"].usage, open),
        (lambda attached: attached.children(), os.scandir),
        (lambda attached: attached["memory"].charge_common(5), open),
    ],
    ids=["path", "usage", "children", "charge_common"],
)
def test_a_read_while_another_thread_closes_succeeds(
    group: GroupFiles, ask: Callable[[LeaseGroup], object], call: object
) -> None:
    attached = attach(group)
    close_before(attached, call)
    try:
        answer = ask(attached)
    finally:
        sys.setprofile(None)
    assert attached.closed and answer == ask(attached)


def test_a_charge_while_another_thread_closes_is_an_error(group: GroupFiles) -> None:
    attached = attach(group)
    close_before(attached, os.open)
    try:
        with pytest.raises(ValueError, match="closed"):
            attached.charge_common({"memory": 5, "tokens": 7})
    finally:
        sys.setprofile(None)
    assert (group.usage, group.number("usage", "tokens")) == (0, 0)


def test_charges_outlive_the_python_objects(group: GroupFiles) -> None:
    code = (
        "import fsmount, gc, sys\n"
        "fsmount.attach(sys.argv[1], transport='files')['memory'].charge(5)\n"
        "gc.collect()\n"
        "print(flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", code, str(group.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"\n"
        assert group.usage == 5
        process.stdin.write(b"\n")
    eventually(lambda: group.usage == 0)


@pytest.mark.parametrize(("on_exit", "left"), [("release", 0), ("keep", 30)])
def test_a_death_of_any_kind_is_the_end(group: GroupFiles, on_exit: fsmount.OnExit, left: int) -> None:
    process = HolderProcess(group.path, transport="files", on_exit=on_exit)
    process.charge(30)
    process.kill()
    eventually(lambda: group.stat()["holders"] == 0)
    assert (group.usage, group.stat()["common"]) == (left, left)


def test_a_child_holds_nothing_and_opens_its_own(group: GroupFiles, memory: LeaseCounter) -> None:
    memory.charge(100)
    news, pen = os.pipe()
    go, start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with memory.hold(0):
                pass
            held = memory.held
            memory.charge(7)
            os.write(pen, f"{held} {memory.held} {memory.usage}".encode())
            os.read(go, 1)
        finally:
            os._exit(0)
    assert os.read(news, 100) == b"0 7 107"
    assert (memory.held, group.usage) == (100, 107)
    assert sorted(line.held for line in group.holders()) == [7, 100]
    os.write(start, b"x")
    os.waitpid(child, 0)
    eventually(lambda: group.usage == 100)
    memory.uncharge(100)
    for descriptor in (news, pen, go, start):
        os.close(descriptor)


def test_a_child_does_not_keep_its_parents_lease(group: GroupFiles) -> None:
    """The last close is the parent's, although its child lives on."""
    attached = attach(group)
    attached["memory"].charge(5)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writer)
            os.read(reader, 1)
        finally:
            os._exit(0)
    os.close(reader)
    attached.close()
    assert group.usage == 0
    eventually(lambda: group.holders() == [], what="the child let go of the lease")
    os.close(writer)
    os.waitpid(child, 0)


# ---- where it does not work


def test_only_a_directory_of_a_tree_can_be_attached(group: GroupFiles, mount: Mount) -> None:
    with fails_with(errno.EINVAL):
        fsmount.attach(mount.directory, transport="files")
    with fails_with(errno.ENOENT):
        fsmount.attach(group.path / "missing", transport="files")
    with fails_with(errno.ENOTDIR):
        fsmount.attach(group.file("stat"), transport="files")


def test_a_dead_daemon_is_tree_gone_until_one_attaches_again() -> None:
    with mounted() as mount:
        attached = attach(mount.root)
        memory = attached["memory"]
        memory.charge(5)
        mount.kill()
        for action in (lambda: memory.charge(1), lambda: memory.held, lambda: memory.usage, lambda: memory.stat()):
            with pytest.raises(fsmount.TreeGone) as raised:
                action()
            assert raised.value.errno == errno.ENOTCONN
        with pytest.raises(fsmount.TreeGone):
            attach(mount.root)
        attached.close()
        mount.start()
        assert mount.root.usage == 5, "a lease lasts as long as its process when its daemon died"
        with attach(mount.root) as again:
            again["memory"].charge(1)
            assert mount.root.usage == 6
        mount.umount("--keep")
        mount.daemon = None


def test_a_mount_that_is_gone_is_tree_gone_by_the_path_it_had() -> None:
    with mounted() as mount:
        group = mount.root.mkdir("group")
        attached = attach(group)
        attached["memory"].charge(5)
        mount.umount("--keep")
        mount.daemon = None
        with pytest.raises(fsmount.TreeGone) as raised:
            attached["memory"].charge(1)
        assert raised.value.region == attached.path == str(group.path)
        attached.close()


def test_where_nothing_is_mounted_any_more_a_group_is_tree_gone() -> None:
    with mounted() as mount:
        path = mount.root.mkdir("web").mkdir("api").path
        attached = attach(GroupFiles(path))
        group = attached.parent
        assert group is not None
        attached.close()
        child = attached["memory"]
        mount.umount("--keep")
        mount.daemon = None
        for action in (
            lambda: attached.parent,
            lambda: attached.name,
            lambda: attached.exists,
            lambda: child.usage,
            lambda: setattr(child, "limit", 5),
            lambda: child.probe(1),
            group.children,
            lambda: group.exists,
            lambda: group.charge(memory=1),
            lambda: group["memory"].charge(1),
            lambda: group["memory"].charge_common(1),
        ):
            with pytest.raises(fsmount.TreeGone) as raised:
                action()
            assert raised.value.region in (str(path), str(path.parent))
        with fails_with(errno.ENOENT):
            fsmount.attach(path, transport="files")
        mount.start()
        with group:
            group["memory"].charge(1)
        path.rmdir()
        assert not attached.exists
        for action in (lambda: attached.parent, lambda: child.usage):
            with pytest.raises(fsmount.GroupRemoved):
                action()


@pytest.mark.root
def test_another_user_charges_a_delegated_lease() -> None:
    assert AS_ROOT
    with mounted("-o", "allow_other", "--resource", "memory", "--resource", "tokens:count") as mount:
        group = mount.root.mkdir("group", 0o755)
        group.set_limit(100)

        def charge() -> list[object]:
            with fsmount.attach(group.path) as attached:
                memory = attached["memory"]
                memory.charge(60)
                return [isinstance(attached, LeaseGroup), memory.held, memory.usage, memory.try_charge(41)]

        with fails_with(errno.EACCES):
            as_user(12345, charge)
        os.chown(group.file("lease"), 12345, 12345)  # of one resource alone
        assert as_user(12345, charge) == [True, 60, 60, False]
        with fails_with(errno.EACCES):
            as_user(12345, lambda: fsmount.attach(group.path, transport="files").charge(memory=1, tokens=1))
        eventually(lambda: group.usage == 0)
        assert group.failcnt == 1
        with fails_with(errno.EPERM, errno.EACCES):
            as_user(12345, lambda: fsmount.attach(group.path, transport="memory"))
        group.remove()
