"""A mount without allow_other: for all other users, root too, the error names that option instead of chmod."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

import pytest

from tests.cli.place import Place, refused, run, run_here
from tests.mounts import as_user

pytestmark = pytest.mark.root

OWNER = pwd.getpwnam("nobody").pw_uid  # fusermount3 refuses a user without a name
ANOTHER = 60_102


@pytest.fixture(scope="module")
def private() -> Iterator[Place]:
    """A mount of another user, with the group web."""
    place = Place()
    os.chown(place.path, OWNER, OWNER)

    def mount() -> list[object]:
        done = run("mount", place.path)
        os.mkdir(place.path / "web")
        return [done.returncode, done.stderr, place.daemon if os.path.ismount(place.path) else 0]

    try:
        status, error, daemon = as_user(OWNER, mount)
        assert (status, error) == (0, "")
        place.daemons.add(daemon)
        yield place
        assert as_user(OWNER, lambda: run("umount", "--quiet", place.path).returncode) == 0
        os.chown(place.path, 0, 0)
    finally:
        place.destroy()


@pytest.mark.parametrize(
    "words",
    [
        ["get", "{}"],
        ["set", "{}", "memory.limit=1"],
        ["charge", "{}", "memory=1"],
        ["uncharge", "{}", "memory=1"],
        ["wait", "{}", "memory=1"],
        ["tree", "{}"],
        ["top", "{}", "-n", "1"],
        ["exporter", "{}", "--listen", "127.0.0.1:0"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("user", [0, ANOTHER])
def test_the_error_names_the_missing_option_and_its_user(private: Place, words: list[str], user: int) -> None:
    group = private.path if words[0] == "exporter" else private.path / "web"

    def attempt() -> list[object]:
        done = run_here(*(word.format(group) for word in words))
        return [done.returncode, done.stdout, done.stderr]

    status, out, error = as_user(user, attempt)
    assert (status, out) == (1, "")
    assert error.startswith(f"fsmount: {group}: ")
    assert error.endswith(
        f"; user {OWNER} mounted it without -o allow_other: act as that user, or mount it with that option\n"
    )
    assert "chmod" not in error and error.count("\n") == 1


def test_the_error_about_a_directory_closed_by_its_mode_names_chmod(place: Place) -> None:
    place.mount("-o", "allow_other")
    (place.path / "web").mkdir(mode=0o700)

    def attempt() -> str:
        return refused(run_here("get", place.path / "web"), place.path / "web")

    error = as_user(ANOTHER, attempt)
    assert error == f"Permission denied ({place.path}/web); its owner or root can permit it with chmod or chown"
    place.umount()
