"""A set-group-ID directory passes on its group and that bit to groups made in it, as on other file systems."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from tests.cli.place import run
from tests.mounts import GROUP_FILES, GroupFiles, Mount, as_user, mounted, resource_files

pytestmark = pytest.mark.root

FILES = resource_files() | GROUP_FILES
# User and group numbers without an account.
ALICE, TEAM = 60_101, 60_200


@pytest.fixture(scope="module")
def shared() -> Iterator[Mount]:
    """A mount that every user sees."""
    with mounted("-o", "allow_other") as mount:
        yield mount


@pytest.fixture
def team(shared: Mount, new_group: Callable[[Mount], GroupFiles]) -> Iterator[GroupFiles]:
    """A directory of the group TEAM, with the bit."""
    group = new_group(shared)
    os.chown(group.path, -1, TEAM)
    os.chmod(group.path, 0o2775)
    yield group
    os.chmod(group.path, 0o755)
    shared.check()


def access(path: Path) -> tuple[str, int]:
    status = os.stat(path)
    return oct(stat.S_IMODE(status.st_mode)), status.st_gid


def test_a_new_group_belongs_to_the_group_of_its_directory_and_has_the_bit(team: GroupFiles) -> None:
    made = team.mkdir("made", 0o755)
    assert access(made.path) == ("0o2755", TEAM)
    os.rmdir(made.path)


def test_the_files_of_a_new_group_belong_to_the_same_group(team: GroupFiles) -> None:
    made = team.mkdir("made")
    assert {os.stat(made / name).st_gid for name in FILES} == {TEAM}
    assert {oct(stat.S_IMODE(os.stat(made / name).st_mode)) for name in FILES} == set(map(oct, FILES.values()))
    os.rmdir(made.path)


def test_groups_further_down_inherit_the_group_and_the_bit(team: GroupFiles) -> None:
    deepest = team.mkdir("a").mkdir("b").mkdir("c")
    assert access(deepest.path) == ("0o2755", TEAM)
    for group in deepest, team.child("a").child("b"), team.child("a"):
        os.rmdir(group.path)


def test_the_umask_of_the_user_applies_and_spares_the_bit(team: GroupFiles) -> None:
    before = os.umask(0o077)
    try:
        made = team.mkdir("made")
    finally:
        os.umask(before)
    assert access(made.path) == ("0o2700", TEAM)
    os.rmdir(made.path)


def test_groups_made_by_a_user_outside_the_group_belong_to_it(team: GroupFiles) -> None:
    os.chmod(team.path, 0o2777)
    as_user(ALICE, lambda: os.mkdir(team / "made"))
    assert (os.stat(team / "made").st_uid, access(team / "made")) == (ALICE, ("0o2755", TEAM))
    os.rmdir(team / "made")


def test_a_chmod_by_an_owner_outside_the_group_clears_the_bit(team: GroupFiles) -> None:
    made = team.mkdir("made")
    os.chown(made.path, ALICE, -1)
    os.chmod(made.path, 0o2755)
    as_user(ALICE, lambda: os.chmod(made.path, 0o2750))
    assert access(made.path) == ("0o750", TEAM)
    as_user(ALICE, lambda: os.chmod(made.path, 0o2755), gid=TEAM)
    assert access(made.path) == ("0o2755", TEAM)
    os.rmdir(made.path)


def test_without_the_bit_a_new_group_belongs_to_the_group_of_its_maker(team: GroupFiles) -> None:
    os.chmod(team.path, 0o777)
    as_user(ALICE, lambda: os.mkdir(team / "made"))
    assert access(team / "made") == ("0o755", ALICE)
    os.rmdir(team / "made")


def test_a_group_made_in_the_region_inherits_like_a_group_made_through_the_mount(
    team: GroupFiles, shared: Mount
) -> None:
    with fsmount.Tree.open(str(shared.region)) as tree:
        group = tree.root.child(team.path.name)
        made = group.mkdir("made")
        assert access(team / "made") == ("0o2755", TEAM)
        group.mkdir_for("given", 0o700, 0, 0)  # an explicit group id takes precedence
        assert access(team / "given") == ("0o700", 0)
        made.remove()
        group.rmdir("given")


def test_the_bit_survives_a_restart_and_a_round_trip_through_a_file(tmp_path: Path) -> None:
    with mounted() as mount:
        mount.expected_log.append("the previous daemon died")
        team = mount.root.mkdir("team")
        os.chown(team.path, -1, TEAM)
        os.chmod(team.path, 0o2775)
        team.mkdir("inherits")
        other = team.mkdir("other")
        os.chown(other.path, -1, 0)
        os.chmod(other.path, 0o755)
        paths = ["team", "team/inherits", "team/other", "team/inherits/memory.limit_in_bytes", "team/other/lease"]
        before = {path: access(mount.path / path) for path in paths}
        assert before["team/inherits"] == ("0o2755", TEAM) and before["team/other"] == ("0o755", 0)
        mount.kill()
        mount.start()
        assert {path: access(mount.path / path) for path in paths} == before
        assert access(team.mkdir("later").path) == ("0o2755", TEAM)
        os.rmdir(team / "later")
        saved = tmp_path / "tree.toml"
        assert run("save", mount.path, saved).returncode == 0
    with mounted("--config", str(saved)) as again:
        assert {path: access(again.path / path) for path in paths} == before
