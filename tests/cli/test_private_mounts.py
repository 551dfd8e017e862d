"""A mount without allow_other: the error says so to everybody else, root too, and does not suggest chmod."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

import pytest

from tests.cli.place import Place, refused, run
from tests.mounts import as_user

pytestmark = pytest.mark.root

OWNER = pwd.getpwnam("nobody").pw_uid  # fusermount3 wants a name
ANOTHER = 60_102


@pytest.fixture
def private(place: Place) -> Iterator[Place]:
    os.chown(place.path, OWNER, OWNER)

    def mount() -> list[object]:
        done = run("mount", place.path)
        os.mkdir(place.path / "web")
        return [done.returncode, done.stderr, place.daemon if os.path.ismount(place.path) else 0]

    status, said, daemon = as_user(OWNER, mount)
    assert (status, said) == (0, "")
    place.daemons.add(daemon)
    yield place
    assert as_user(OWNER, lambda: run("umount", "--quiet", place.path).returncode) == 0
    os.chown(place.path, 0, 0)


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
def test_it_is_told_how_to_get_in(private: Place, words: list[str], user: int) -> None:
    group = private.path if words[0] == "exporter" else private.path / "web"

    def attempt() -> list[object]:
        done = run(*(word.format(group) for word in words))
        return [done.returncode, done.stdout, done.stderr]

    status, out, said = as_user(user, attempt)
    assert (status, out) == (1, "")
    assert said.startswith(f"fsmount: {group}: ")
    assert said.endswith(
        f"; user {OWNER} mounted it without -o allow_other: act as that user, or mount it with that option\n"
    )
    assert "chmod" not in said and said.count("\n") == 1


def test_a_directory_that_its_mode_closes_is_still_a_matter_for_chmod(place: Place) -> None:
    place.mount("-o", "allow_other")
    (place.path / "web").mkdir(mode=0o700)

    def attempt() -> str:
        return refused(run("get", place.path / "web"), place.path / "web")

    said = as_user(ANOTHER, attempt)
    assert said == f"Permission denied ({place.path}/web); its owner or root can permit it with chmod or chown"
    place.umount()
