"""fsmount mount --config: a new tree matches its description completely, or the mount fails and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.admin import region_path
from tests.cli.place import Place, refused, run_here
from tests.mounts import GroupFiles, eventually

TREE = """\
batch = 0

[resources]
memory = "bytes"
tokens = "count"

[capacity]
groups = 16

["/web/api"]
mode = "0700"
memory.limit = "512M"
tokens.soft_limit = 100
"""


@pytest.fixture
def file(place: Place) -> Path:
    path = place.directory / "tree.toml"
    path.write_text(TREE)
    return path


def nothing_is_left(place: Place) -> bool:
    """Whether there is no mount, no region and no unfinished region."""
    where = Path(region_path.place(str(place.path)))
    left = list(where.parent.glob(where.name + "*"))
    region_path.forget(str(place.path))
    return not (left or place.mounts)


def test_the_tree_matches_the_description_when_the_command_returns(place: Place, file: Path) -> None:
    done = run_here("mount", "tree", "--config", "tree.toml", cwd=place.directory)
    assert (done.returncode, done.stderr) == (0, "")
    place.daemons.add(place.daemon)
    units = {"memory": "bytes", "tokens": "count"}
    root = GroupFiles(place.path, units)
    api = root.child("web").child("api")
    assert (api.limit, api.number("soft_limit", "tokens"), root.stat()["batch"]) == (512 << 20, 100, 0)
    assert os.stat(api.path).st_mode & 0o7777 == 0o700
    for number in range(13):
        root.mkdir(str(number))
    with pytest.raises(OSError, match="No space left"):
        root.mkdir("one too many")
    place.umount()


@pytest.mark.root
def test_a_mount_sets_the_owners_of_the_description(place: Place, file: Path) -> None:
    file.write_text(
        '["/"]\nowner = "daemon"\nfiles."*".owner = 2\n'
        '["/web"]\nowner = 1234\ngroup = "daemon"\nfiles."memory.lease" = { owner = "root", mode = "0666" }\n'
    )
    place.mount("--config", file)

    def access(name: str) -> tuple[int, int, int]:
        status = os.stat(place.path / name)
        return status.st_uid, status.st_gid, status.st_mode & 0o7777

    assert access(".") == (1, 0, 0o755)
    assert access("memory.limit_in_bytes") == (2, 0, 0o644)
    assert access("web") == (1234, 1, 0o755)
    assert access("web/memory.limit_in_bytes") == (1234, 1, 0o644)
    assert access("web/memory.lease") == (0, 1, 0o666)
    place.umount()


# ---- wrong descriptions


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("batch = 0\nx = \n", "2: Invalid value"),
        (
            'batch = 0\n\n["/web"]\n\nmemory.limit = "4kB"\n',
            '5: memory.limit: "4kB" is not an amount (4096, 64K, max)',
        ),
        ('["/a"]\n["/a/b c"]\nowner = "no such user"\n', '3: owner: there is no user "no such user" here'),
        ('["/a"]\nmemory.limit = 1\n["/a/memory.stat"]\n', '3: "/a/memory.stat": "memory.stat" is the name of a'),
    ],
    ids=["syntax", "amount", "user", "name"],
)
def test_an_error_in_a_description_names_its_line_and_leaves_nothing(
    place: Place, file: Path, text: str, error: str
) -> None:
    file.write_text(text)
    assert refused(run_here("mount", place.path, "--config", file), place.path).startswith(f"{file}:{error}")
    assert nothing_is_left(place)


@pytest.mark.user
def test_an_ordinary_user_cannot_give_groups_away(place: Place, file: Path) -> None:
    file.write_text('["/a"]\nmode = "0700"\nowner = "root"\n')
    text = refused(run_here("mount", place.path, "--config", file), place.path)
    assert text == f'{file}:3: owner: only root can give a group to another user, "root"'
    assert nothing_is_left(place)


def test_an_error_names_a_missing_description(place: Place) -> None:
    missing = place.directory / "missing"
    text = refused(run_here("mount", place.path, "--config", missing), missing)
    assert text == "No such file or directory: name a file that fsmount save wrote"
    text = refused(run_here("mount", place.path, "--config", place.directory), place.directory)
    assert text == "Is a directory: name a file"


def test_a_description_with_too_many_groups_fails_and_leaves_nothing(place: Place, file: Path) -> None:
    file.write_text('["/a"]\n["/b/c"]\n')
    text = refused(run_here("mount", place.path, "--config", file, "--groups", "3"), place.path)
    assert text.endswith("the region has no room for another group (/b/c)")
    assert nothing_is_left(place)


def test_a_mount_that_fails_after_the_tree_was_built_leaves_nothing(place: Place, file: Path) -> None:
    refused(run_here("mount", place.path, "--config", file, "-o", "bogus"), place.path)
    assert nothing_is_left(place)


# ---- descriptions and options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--batch", "64K"], "--batch says 65536 and {} says 0: change one, or leave --batch out"),
        (["--groups", "17"], "--groups says 17 and {} says 16: change one, or leave --groups out"),
        (
            ["--resource", "memory"],
            "--resource says memory:bytes and {} says memory:bytes, tokens:count: change one, or leave --resource out",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_contradicts_the_description_is_an_error(
    place: Place, file: Path, options: list[str], error: str
) -> None:
    assert refused(run_here("mount", place.path, "--config", file, *options), place.path) == error.format(file)
    assert nothing_is_left(place)


def test_an_option_may_repeat_or_extend_the_description(place: Place, file: Path) -> None:
    same = ["--batch", "0", "--groups", "16", "--resource", "memory", "--resource", "tokens:count"]
    place.mount("--config", file, *same, "--cells", "256")
    text = run_here("save", place.path, "-").stdout
    assert "groups = 16\ncells = 256\n" in text
    place.umount()


# ---- counters of an earlier mount


def warned(place: Place, *lines: str) -> str:
    """The warnings of a mount that succeeds."""
    return "".join(f"fsmount: {place.path}: {line}\n" for line in lines)


@pytest.mark.parametrize("end", ["kept", "killed"])
def test_counters_of_an_earlier_mount_stay_and_the_log_names_the_differences(
    place: Place, file: Path, end: str
) -> None:
    place.mount("--config", file)
    web = place.root.child("web")
    web.set_limit(17)
    web.child("api").charge(5)
    os.rename(web.child("api").path, web / "other")
    if end == "kept":
        place.umount("--keep")
    else:
        place.signal(signal.SIGKILL)
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "-f", "--config", str(file)]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    place.daemons.add(daemon.pid)
    # The files are absent while the mount point still belongs to the killed daemon.
    eventually(lambda: daemon.poll() is not None or os.path.exists(place.path / ".fsmount"), what="mounted")
    assert (web.limit, web.usage, os.path.exists(web / "other"), os.path.exists(web / "api")) == (17, 5, True, False)
    daemon.terminate()
    _, log = daemon.communicate(timeout=60)
    assert daemon.returncode == 0
    assert log == warned(
        place,
        f"the group /web/api is not there: mkdir -p {place.path}/web/api && "
        f"fsmount set {place.path}/web/api memory.limit=512M tokens.soft_limit=100",
        f"{file} applies to new counters only, and the existing ones stay, with one difference: run the commands "
        f"above, or remove the counters with fsmount umount {place.path} and mount again",
    )


def test_the_commands_that_the_log_prints_apply_an_edited_description(place: Place, file: Path) -> None:
    place.mount("--config", file)
    place.root.mkdir("made since").set_limit("1M")
    place.umount("--keep")
    place.mount("--config", file)  # a group that the description does not name is no difference
    place.umount("--keep")
    user = os.geteuid()
    file.write_text(
        TREE.replace("0700", "0750").replace("512M", "1G").replace("= 100", "= 7").replace("groups = 16", "groups = 32")
        + """\
files."memory.lease".mode = "0666"
["/a b"]
["/100%25"]
tokens.limit = 3
"""
    )
    done = run_here("mount", place.path, "--config", file)
    place.daemons.add(place.daemon)
    assert done.returncode == 0
    warnings = done.stderr.splitlines()
    web, full = f"{place.path}/web/api", f"{place.path}/100%"
    differences = [
        "there is room for 16 groups, not 32",
        f"the group /100%25 is not there: mkdir -p {full} && fsmount set {full} tokens.limit=3",
        f"the group /a b is not there: mkdir -p '{place.path}/a b'",
        f"memory.limit of /web/api is 512M, not 1G: fsmount set {web} memory.limit=1G",
        f"tokens.soft_limit of /web/api is 100, not 7: fsmount set {web} tokens.soft_limit=7",
    ]
    assert (
        done.stderr.startswith(warned(place, *differences))
        and "with 7 differences: " in warnings[5]
        and len(warnings) == 6
    )
    for _ in range(3):  # each mount prints only the first differences
        commands = [line.partition(": ")[2].partition(": ")[2].partition(": ")[2] for line in warnings[:-1]]
        script = "\n".join(command.replace("fsmount ", f"{sys.executable} -m fsmount ") for command in commands)
        subprocess.run(["sh", "-ec", script], check=True)
        place.umount("--keep")
        warnings = run_here("mount", place.path, "--config", file).stderr.splitlines()
        place.daemons.add(place.daemon)
    assert warnings[0].endswith(differences[0]) and len(warnings) == 2, warnings
    assert os.stat(web).st_uid == user and os.stat(f"{web}/memory.lease").st_mode & 0o777 == 0o666
    place.umount()


def test_a_mount_warns_of_other_resources_in_the_description(place: Place, file: Path) -> None:
    place.mount("--config", file)
    place.umount("--keep")
    file.write_text(f"""
batch = "auto"
[resources]
memory = "bytes"
gpus = "count"
["/web/api"]
owner = {os.geteuid()}
gpus.limit = 4
""")
    done = run_here("mount", place.path, "--config", file)
    place.daemons.add(place.daemon)
    assert done.stderr.splitlines()[:2] == [
        f"fsmount: {place.path}: the resources are memory:bytes, tokens:count, not memory:bytes, gpus:count",
        f"fsmount: {place.path}: batch is 0, not auto",
    ]
    assert "with 2 differences: " in done.stderr
    place.umount()


@pytest.mark.root
def test_a_mount_warns_of_another_owner_with_the_command_to_change_it(place: Place, file: Path) -> None:
    place.mount("--config", file)
    place.umount("--keep")
    file.write_text('["/web/api"]\nowner = "daemon"\ngroup = "daemon"\nfiles."*".owner = "root"\n')
    done = run_here("mount", place.path, "--config", file)
    place.daemons.add(place.daemon)
    assert done.stderr.splitlines()[:2] == [
        f"fsmount: {place.path}: the owner of /web/api is root, not daemon: chown daemon {place.path}/web/api",
        f"fsmount: {place.path}: the group of /web/api is root, not daemon: chgrp daemon {place.path}/web/api",
    ]
    place.umount()


def test_an_error_in_a_description_fails_also_with_counters_of_an_earlier_mount(place: Place, file: Path) -> None:
    place.mount("--config", file)
    place.root.child("web").charge(5)
    place.umount("--keep")
    file.write_text("batch = 0\nbtach = 0\n")
    assert f"{file}:2: btach: unknown here" in refused(run_here("mount", place.path, "--config", file), place.path)
    place.mount()
    assert place.root.usage == 5
    place.root.child("web").uncharge(5)
    place.umount()


def test_a_mount_killed_while_it_builds_the_tree_leaves_no_unfinished_tree(place: Place, file: Path) -> None:
    file.write_text("".join(f'["/{number}"]\nmemory.limit = {number}\n' for number in range(3000)))
    where = Path(region_path.place(str(place.path)))
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "-f", "--config", str(file)]
    while True:
        with subprocess.Popen(command) as mounting:
            eventually(
                lambda: where.exists() or list(where.parent.glob(where.name + ".new-*")), what="an unfinished region"
            )
            mounting.kill()
        if not where.exists():
            break
        eventually(lambda: not place.processes)  # the tree was finished before the kill
        run_here("umount", place.path)
        where.unlink(missing_ok=True)
    place.mount("--config", file)
    assert [path.name for path in where.parent.glob(where.name + "*")] == [where.name]
    assert place.root.child("2999").limit == 2999
    place.umount()
