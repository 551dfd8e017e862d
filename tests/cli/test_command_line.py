"""A wrong command line has status 2 and changes nothing; --help is complete."""

from __future__ import annotations

import importlib.metadata
import os

import pytest

import fsmount
from fsmount.cli import COMMANDS
from tests.cli.place import Place, run_here


@pytest.mark.parametrize(
    "options",
    [
        ["--resource", "memory:bananas"],
        ["--resource", ""],
        ["--resource", ":count"],
        ["--resource", "a", "--resource", "a:count"],
        ["--batch", "some"],
        ["--batch", "-1"],
        ["--batch", "9223372036854775808"],
        ["--groups", "0"],
        ["--holders", "many"],
        ["--cells", "-5"],
        ["--groups", str(2**40)],
        ["--colour", "red"],
        ["another-argument"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_has_status_2(place: Place, options: list[str]) -> None:
    done = run_here("mount", place.path, *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: fsmount mount")
    assert "Traceback" not in done.stderr
    assert not place.mounts


@pytest.mark.parametrize(
    "arguments",
    [
        ["mount"],
        ["umount"],
        ["save"],
        ["doctor"],
        ["get"],
        ["set", "/a"],
        ["charge", "/a"],
        ["uncharge"],
        ["wait", "/a"],
        ["wait", "--timeout", "soon", "/a", "memory=1"],
        ["charge", "--wait=-1", "/a", "memory=1"],
        ["charge", "--wait=", "/a", "memory=1"],
        ["run", "-g", "/a", "-r", "memory=1", "--wait=1y", "true"],
        ["run", "-g", "/a", "-r", "memory=1"],
        ["run", "-g", "/a", "true"],
        ["run", "-r", "memory=1", "true"],
        ["top", "--sort", "beauty"],
        ["top", "-n", "0"],
        ["top", "-d", "0"],
        ["dismount"],
        ["umount", "--drop", "/tmp"],
        ["save", "/a", "/b", "/c"],
    ],
    ids=" ".join,
)
def test_a_command_without_a_required_argument_has_status_2(arguments: list[str]) -> None:
    assert run_here(*arguments).returncode == 2


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_names_every_command_argument_and_option(command: list[str]) -> None:
    done = run_here(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    wanted = {
        (): list(COMMANDS),
        ("mount",): "-f --debug --resource --batch --config --region --groups --holders --cells -o".split(),
        ("umount",): ["--keep", "--stale"],
        ("get",): ["GROUP", "[R[.KEY]]...", "--json"],
        ("set",): ["GROUP", "R.limit=N|R.soft_limit=N...", "75"],
        ("charge",): ["GROUP", "R=N...", "75"],
        ("run",): ["--group", "--resource", "COMMAND...", "125", "126", "127", "75"],
        ("tree",): ["[MOUNTPOINT|GROUP]", "--resource", "--json"],
        ("status",): ["[MOUNTPOINT]", "--json"],
        ("top",): ["[MOUNTPOINT|GROUP]", "--resource", "--sort", "--json", "Keys:"],
        ("wait",): ["GROUP", "R=N...", "--timeout", "75"],
        ("completion",): ["bash|zsh|fish"],
        ("uncharge",): ["GROUP", "R=N..."],
        ("save",): ["MOUNTPOINT", "TREE.toml"],
        ("doctor",): ["MOUNTPOINT", "REGION", "--repair", "--json"],
        ("exporter",): ["MOUNTPOINT", "--listen", "127.0.0.1:9744"],
    }
    also = ["Examples:", f"fsmount {command[0]} ", "exit status"] if command else []
    text = " ".join(done.stdout.split())
    assert [word for word in (*wanted[tuple(command)], *also) if word not in text] == []


def test_the_help_of_unmount_is_that_of_umount() -> None:
    done, other = run_here("unmount", "--help"), run_here("umount", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == other.stdout.replace("Usage: fsmount umount", "Usage: fsmount unmount")
    assert "unmount     The same as umount.\n" in run_here("--help").stdout


def test_unmount_unmounts(place: Place) -> None:
    place.mount()
    assert run_here("unmount", place.path).returncode == 0
    assert not place.mounts


def test_version_prints_the_version_of_the_package() -> None:
    done = run_here("--version")
    assert done.stdout == f"fsmount, version {fsmount.__version__}\n"
    try:
        version = importlib.metadata.version("fsmount")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here")
    assert (done.returncode, done.stderr) == (0, "")
    assert version in done.stdout


def test_batch_accepts_the_same_numbers_as_the_files(place: Place) -> None:
    place.mount("--batch", "0x10K")
    assert place.root.stat()["batch"] <= 0x10 << 10
    place.umount()
    assert os.listdir(place.path) == []
