"""attach() through a mount: how the region is found, when it is not used, and what the daemon learns."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from fsmount import Tree
from fsmount.files import LeaseGroup
from fsmount.shm import Group
from tests.mounts import GroupFiles, Mount, as_user, eventually, fails_with, mounted

pytestmark = pytest.mark.any_user


@pytest.fixture
def group(mount: Mount, new_group: Callable[[Mount], GroupFiles]) -> Iterator[GroupFiles]:
    yield new_group(mount)
    gc.collect()
    mount.check()


def control_files() -> list[str]:
    """The control channels that are tied to the memory of this process; no other is open."""
    descriptors = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    assert not any(os.readlink(name).endswith("/.fsmount") for name in descriptors if os.path.islink(name))
    mapped = (line.split(None, 5)[-1] for line in Path("/proc/self/maps").read_text().splitlines())
    return [path for path in mapped if path.endswith("/.fsmount")]


@pytest.mark.parametrize("transport", ["memory", "files"])
def test_a_path_may_be_text_bytes_or_path_like(
    group: GroupFiles, transport: fsmount.Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (group.path, str(group.path), os.fsencode(group.path)):
        with fsmount.attach(path, transport=transport) as attached:
            assert attached.path == str(group.path)
    for wrong in (5, None, [], object()):
        with pytest.raises(TypeError, match=f"a path is a str, bytes or os.PathLike, not {type(wrong).__name__}"):
            fsmount.attach(wrong, transport=transport)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NUL"):
        fsmount.attach(f"{group.path}\0", transport=transport)
    monkeypatch.chdir(group.path)
    for empty in ("", b""):
        with fails_with(errno.ENOENT):
            fsmount.attach(empty, transport=transport)


# ---- one holder, one mapping ----------------------------------------------------------------------


def test_a_process_maps_a_region_once_and_is_one_holder(mount: Mount, group: GroupFiles) -> None:
    with fsmount.attach(group.path) as first, fsmount.attach(mount.path) as root, fsmount.attach(group.path) as again:
        assert isinstance(first, Group) and isinstance(root, Group)
        assert first.tree is root.tree
        assert first == again
        first["memory"].charge(5)
        assert again["memory"].held == 5
        assert len(first.tree.holders()) == len(control_files()) == 1
        assert mount.region is not None
        assert Path("/proc/self/maps").read_text().count(str(mount.region)) == 1


def test_an_attach_imports_nothing(group: GroupFiles) -> None:
    program = """if True:
        import sys
        from fsmount import attach
        before = set(sys.modules)
        with attach(sys.argv[1]) as group:
            group["memory"].charge(1)
        print(*set(sys.modules) - before)
    """
    assert subprocess.check_output([sys.executable, "-c", program, group.path], text=True).split() == []


def test_the_last_detach_releases_the_mount_and_the_region(mount: Mount, group: GroupFiles) -> None:
    attached = fsmount.attach(group.path)
    assert len(control_files()) == 1
    attached.close()
    assert control_files() == []
    assert attached["memory"].usage == 0  # it still answers
    del attached
    gc.collect()
    assert mount.region is not None
    assert str(mount.region) not in Path("/proc/self/maps").read_text()


def test_two_trees_are_kept_apart(mount: Mount, group: GroupFiles) -> None:
    with mounted() as other, fsmount.attach(group.path) as here, fsmount.attach(other.path) as there:
        here["memory"].charge(5)
        there["memory"].charge(7)
        assert (group.usage, other.root.usage) == (5, 7)
        here.close()
        there.close()


def test_refusals_name_the_directory_that_refused(mount: Mount, group: GroupFiles) -> None:
    child = group.mkdir("child")
    group.set_limit(100)
    with fsmount.attach(child.path) as attached, pytest.raises(fsmount.LimitExceeded) as caught:
        attached["memory"].charge(101)
    assert caught.value.group == str(group.path)
    child.remove()


# ---- the view of the daemon -----------------------------------------------------------------------


def test_a_forked_child_is_a_holder_of_its_own_until_it_ends(group: GroupFiles) -> None:
    with fsmount.attach(group.path) as attached:
        attached["memory"].charge(100)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            attached["memory"].charge(7)
            os.write(writer, b"%d" % attached["memory"].held)
            signal.pause()
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 16) == b"7"
        os.close(reader)
        assert sorted((line.pid, line.held) for line in group.holders()) == sorted([(os.getpid(), 100), (child, 7)])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        eventually(lambda: group.usage == 100, what="the daemon gives back what the child held")
        assert attached["memory"].held == 100


def test_the_daemon_also_watches_a_process_that_opens_the_region_itself(mount: Mount, group: GroupFiles) -> None:
    program = """if True:
        import os, sys, fsmount
        tree = fsmount.Tree.open(sys.argv[1])
        tree.root.child(sys.argv[2])["memory"].charge(100)
        print(tree.root.child(sys.argv[2])["memory"].usage, flush=True)
        os.kill(os.getpid(), 9)
    """
    assert mount.region is not None
    done = subprocess.run(
        [sys.executable, "-c", program, mount.region, group.path.name], stdout=subprocess.PIPE, check=False, timeout=60
    )
    assert done.stdout == b"100\n"
    eventually(lambda: group.usage == 0, what="the daemon gives back what the dead process held")


def test_groups_made_renamed_and_removed_in_the_region_change_in_the_mount(mount: Mount, group: GroupFiles) -> None:
    assert mount.region is not None
    with Tree.open(mount.region) as tree:
        directly = tree.root.child(group.path.name)
        assert os.stat(group.path).st_nlink == 2
        directly.mkdir("a", mode=0o750)
        assert (group.path / "a").stat().st_mode & 0o7777 == 0o750
        assert os.stat(group.path).st_nlink == 3
        directly.rename("a", "b")
        assert not (group.path / "a").exists()
        assert (group.path / "b" / "memory.stat").exists()
        directly.child("b").mkdir("c")
        assert (group.path / "b" / "c").is_dir()
        directly.child("b").rmdir("c")
        assert not (group.path / "b" / "c").exists()
        directly.rmdir("b")
        assert not (group.path / "b").exists()
        assert os.stat(group.path).st_nlink == 2


# ---- without the use of the region ------------------------------------------------------------------


def test_without_its_region_a_tree_is_charged_through_files() -> None:
    with mounted() as mount:
        assert mount.region is not None
        aside = mount.region.with_suffix(".aside")
        mount.region.rename(aside)
        try:
            with fails_with(errno.ENOENT) as raised:
                fsmount.attach(mount.path, transport="memory")
            assert str(mount.path) in str(raised.value) and '"files"' in str(raised.value)
            with fsmount.attach(mount.path) as attached:
                assert isinstance(attached, LeaseGroup)
                attached["memory"].charge(5)
                assert mount.root.usage == 5
            # another tree's region in its place is not used
            Tree.create(mount.region).close()
            with fails_with(errno.ENOENT) as raised:
                fsmount.attach(mount.path, transport="memory")
            assert "another tree" in str(raised.value)
            with fsmount.attach(mount.path) as attached:
                assert isinstance(attached, LeaseGroup)
        finally:
            aside.rename(mount.region)


@pytest.mark.root
def test_another_user_charges_a_delegated_group_through_files() -> None:
    with mounted("-o", "allow_other") as mount:
        group = mount.root.mkdir("web")
        user = 12345
        with fails_with(errno.EACCES):
            as_user(user, lambda: bool(fsmount.attach(group.path)))
        os.chown(group.file("lease"), user, user)

        def charge() -> list[object]:
            with fsmount.attach(group.path) as attached:
                attached["memory"].charge(5)
                return [type(attached).__name__, attached["memory"].held, attached["memory"].usage]

        assert as_user(user, charge) == ["LeaseGroup", 5, 5]
        with fails_with(errno.EACCES, errno.EPERM):
            as_user(user, lambda: bool(fsmount.attach(group.path, transport="memory")))
        eventually(lambda: group.usage == 0)
        group.remove()


@pytest.mark.root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (util-linux)")
def test_in_another_pid_namespace_a_process_charges_through_files(mount: Mount, group: GroupFiles) -> None:
    program = """if True:
        import sys, fsmount
        try:
            fsmount.attach(sys.argv[1], transport="memory")
        except PermissionError as error:
            print(error.strerror)
        with fsmount.attach(sys.argv[1]) as group:
            group["memory"].charge(5)
            print(type(group).__name__, group["memory"].usage)
    """
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program, str(group.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert done.stderr == ""
    why, how = done.stdout.splitlines()
    assert "pid" in why and '"files"' in why
    assert how == "LeaseGroup 5"
    eventually(lambda: group.usage == 0 and not group.holders())
