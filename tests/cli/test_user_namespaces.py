"""fsmount in a user namespace that maps one user, and shows all others, even root, as the overflow uid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.admin import region_path
from tests.cli.place import Place
from tests.mounts import AS_ROOT

pytestmark = pytest.mark.any_user

USER = 60_103

#: Mounts, charges, keeps the counters, mounts again and unmounts.
SCRIPT = """
set -e
"$@" mount "$POINT" $OPTIONS
echo 5 > "$POINT/memory.charge"
"$@" umount --keep "$POINT"
"$@" mount "$POINT" $OPTIONS
cat "$POINT/memory.usage_in_bytes"
"$@" doctor "$POINT"
echo 5 > "$POINT/memory.uncharge"
"$@" umount "$POINT"
"""


def inside(place: Place, *unshare: str, options: str = "") -> subprocess.CompletedProcess[str]:
    """The output of the script when an ordinary user runs it as the only user of a namespace."""
    if AS_ROOT:
        os.chown(place.directory, USER, USER)
        os.chown(place.path, USER, USER)
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if AS_ROOT else []
    command = [*become, "unshare", "--user", "--map-root-user", *unshare, "sh", "-c", SCRIPT, "sh"]
    return subprocess.run(
        [*command, sys.executable, "-m", "fsmount"],
        env={**os.environ, "POINT": str(place.path), "OPTIONS": options},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("where", ["", "region"])
def test_a_tree_is_mounted_in_a_namespace_that_does_not_map_root(place: Place, where: str) -> None:
    done = inside(place, "--mount", options=f"--region {place.directory / where}" if where else "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", ""), done
    assert not (place.directory / "region").exists()


def test_without_a_mount_namespace_the_error_names_the_command_to_use(place: Place) -> None:
    done = inside(place)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert "unshare --user --mount" in done.stderr


def test_the_overflow_uid_is_trusted_only_in_a_namespace_that_does_not_map_it(tmp_path: Path) -> None:
    assert region_path.trusted_owners() == {0, os.geteuid()}
    code = "from fsmount.admin import region_path; print(sorted(region_path.trusted_owners()))"
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[0, 65534]\n"
