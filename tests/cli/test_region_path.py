"""The path of a region: a function of the mount point, in a directory that no other user can write to."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from fsmount.admin import region_path

pytestmark = pytest.mark.any_user

MOUNTPOINT = "/nowhere/of/these/tests"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory in place of /dev/shm."""
    base = tmp_path / "shm"
    base.mkdir()
    base.chmod(0o1777)
    monkeypatch.setattr(region_path, "SHARED_MEMORY", str(base))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    fallback = tmp_path / "fallback"
    fallback.mkdir()
    fallback.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(fallback))
    return base


def test_a_region_is_in_a_private_directory_of_its_user(base: Path) -> None:
    path = Path(region_path.place(MOUNTPOINT))
    assert path.parent == base / f"fsmount-{os.geteuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert region_path.place(MOUNTPOINT) == str(path)
    assert region_path.place(MOUNTPOINT + "/other") != str(path)


def test_only_an_existing_region_is_found(base: Path) -> None:
    assert region_path.find(MOUNTPOINT) is None
    path = Path(region_path.place(MOUNTPOINT))
    assert region_path.find(MOUNTPOINT) is None
    path.touch()
    assert region_path.find(MOUNTPOINT) == str(path)


@pytest.mark.parametrize("taken", ["link", "file", "writable"])
def test_a_name_that_is_taken_is_avoided(base: Path, tmp_path: Path, taken: str) -> None:
    name = base / f"fsmount-{os.geteuid()}"
    match taken:
        case "link":
            (tmp_path / "trap").mkdir()
            name.symlink_to(tmp_path / "trap")
        case "file":
            name.touch()
        case "writable":
            name.mkdir()
            name.chmod(0o777)
    path = Path(region_path.place(MOUNTPOINT))
    assert path.parent != name and path.parent.name.startswith(f"fsmount-{os.geteuid()}-")
    assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    path.touch()
    assert region_path.find(MOUNTPOINT) == str(path)
    assert region_path.place(MOUNTPOINT) == str(path), "each mount makes another directory"


@pytest.mark.root
def test_a_directory_of_another_user_is_avoided(base: Path) -> None:
    name = base / "fsmount-0"
    name.mkdir(mode=0o700)
    os.chown(name, 12345, 12345)
    (name / Path(region_path.place(MOUNTPOINT)).name).touch()
    assert Path(region_path.place(MOUNTPOINT)).parent != name
    assert region_path.find(MOUNTPOINT) is None


@pytest.mark.root
def test_root_finds_a_region_of_another_user(base: Path) -> None:
    theirs = base / "fsmount-12345"
    theirs.mkdir(mode=0o700)
    path = theirs / Path(region_path.place(MOUNTPOINT)).name
    path.touch()
    assert region_path.find(MOUNTPOINT, 12345) is None, "a file of root's own was found in another user's directory"
    os.chown(path, 12345, 12345)
    os.chown(theirs, 12345, 12345)
    assert region_path.find(MOUNTPOINT, 12345) == str(path)
    assert region_path.find(MOUNTPOINT) is None


def test_without_shared_memory_a_region_is_in_a_temporary_directory(base: Path, tmp_path: Path) -> None:
    base.rmdir()
    path = Path(region_path.place(MOUNTPOINT))
    assert path.parent.parent == tmp_path / "fallback"
    path.touch()
    base.mkdir()
    base.chmod(0o1777)
    assert region_path.find(MOUNTPOINT) == str(path), "the region is lost when /dev/shm appears"


def test_shared_memory_in_which_others_can_rename_is_not_used(base: Path, tmp_path: Path) -> None:
    base.chmod(0o777)
    assert Path(region_path.place(MOUNTPOINT)).parent.parent == tmp_path / "fallback"


def test_without_a_safe_directory_the_error_names_dev_shm(base: Path, tmp_path: Path) -> None:
    base.chmod(0o777)
    (tmp_path / "fallback").chmod(0o777)
    with pytest.raises(FileNotFoundError, match="/dev/shm"):
        region_path.place(MOUNTPOINT)


def test_a_link_leads_to_a_region_elsewhere_until_it_is_removed(base: Path, tmp_path: Path) -> None:
    region = tmp_path / "region"
    region.touch()
    region_path.remember(MOUNTPOINT, str(region))
    assert region_path.find(MOUNTPOINT) == str(region)
    region_path.remember(MOUNTPOINT, str(region))
    assert region_path.find(MOUNTPOINT) == str(region)
    region_path.forget(MOUNTPOINT)
    assert region_path.find(MOUNTPOINT) is None
    assert region.exists()


def test_remembering_a_region_again_keeps_its_link(base: Path, tmp_path: Path) -> None:
    """A process that is killed at that moment leaves the link unchanged."""
    region = tmp_path / "region"
    region.touch()
    region_path.remember(MOUNTPOINT, str(region))
    link = region_path.place(MOUNTPOINT)
    opened = os.open(link, os.O_PATH | os.O_NOFOLLOW)  # keeps its inode number in use
    region_path.remember(MOUNTPOINT, str(region))
    assert os.path.samestat(os.lstat(link), os.fstat(opened))
    os.close(opened)


def test_a_link_never_replaces_an_existing_region(base: Path, tmp_path: Path) -> None:
    (tmp_path / "region").touch()
    own = Path(region_path.place(MOUNTPOINT))
    own.touch()
    with pytest.raises(FileExistsError):
        region_path.remember(MOUNTPOINT, str(tmp_path / "region"))
    assert region_path.find(MOUNTPOINT) == str(own)


def test_a_removed_region_elsewhere_is_not_found(base: Path, tmp_path: Path) -> None:
    region_path.remember(MOUNTPOINT, str(tmp_path / "gone"))
    assert region_path.find(MOUNTPOINT) is None
    assert not os.path.islink(region_path.place(MOUNTPOINT))


def test_a_region_at_its_usual_path_needs_no_link(base: Path) -> None:
    path = region_path.place(MOUNTPOINT)
    Path(path).touch()
    region_path.remember(MOUNTPOINT, path)
    region_path.forget(MOUNTPOINT)
    assert region_path.find(MOUNTPOINT) == path


def test_the_mode_of_its_directory_decides_if_others_can_replace_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "region")
    tmp_path.chmod(0o755)
    assert region_path.only_owner_can_replace(path)
    tmp_path.chmod(0o777)
    assert not region_path.only_owner_can_replace(path)
    tmp_path.chmod(0o1777)
    assert region_path.only_owner_can_replace(path)
    tmp_path.chmod(0o700)
    assert not region_path.only_owner_can_replace(str(tmp_path / "missing" / "region"))


def test_a_directory_above_decides_too_if_others_can_replace_a_file(tmp_path: Path) -> None:
    above = tmp_path / "above"
    directory = above / "mine"
    directory.mkdir(parents=True, mode=0o700)
    path = str(directory / "region")
    assert region_path.only_owner_can_replace(path)
    above.chmod(0o777)
    assert not region_path.only_owner_can_replace(path)
    above.chmod(0o1777)
    assert region_path.only_owner_can_replace(path)
    (tmp_path / "link").symlink_to(above)
    above.chmod(0o775)
    assert not region_path.only_owner_can_replace(str(tmp_path / "link" / "mine" / "region"))


@pytest.mark.root
def test_the_owner_of_a_directory_above_can_replace_a_file(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    ours = theirs / "ours"
    ours.mkdir(parents=True, mode=0o700)
    os.chown(theirs, 12345, 12345)
    assert not region_path.only_owner_can_replace(str(ours / "region"))


def test_the_private_directory_is_removed_with_its_last_region(base: Path) -> None:
    first, second = Path(region_path.place(MOUNTPOINT)), Path(region_path.place(MOUNTPOINT + "/other"))
    first.touch()
    second.touch()
    first.unlink()
    region_path.forget(MOUNTPOINT)
    assert second.exists()
    second.unlink()
    region_path.forget(MOUNTPOINT + "/other")
    assert list(base.iterdir()) == []
    assert region_path.place(MOUNTPOINT) == str(first)
