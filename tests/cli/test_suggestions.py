""" "Did you mean": an error about a mistyped name suggests the nearest existing name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fsmount
from tests.cli.place import Place, refused, run_here
from tests.mounts import GroupFiles


@pytest.fixture
def web(group: GroupFiles) -> GroupFiles:
    web = group.mkdir("web")
    web.mkdir("api")
    return web


@pytest.mark.parametrize(
    ("typed", "meant"), [("umuont", "umount"), ("charg", "charge"), ("docter", "doctor"), ("Tree", "tree")]
)
def test_an_error_suggests_the_nearest_command(typed: str, meant: str) -> None:
    done = run_here(typed)
    assert done.returncode == 2
    assert f"No such command '{typed}'; did you mean {meant}?\n" in done.stderr


def test_an_error_suggests_no_command_if_none_is_near() -> None:
    assert "No such command 'xyzzy'\n" in run_here("xyzzy").stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["mount", "--resorce", "memory", "/nope"], "--resource"),
        (["umount", "--kep", "/nope"], "--keep"),
        (["get", "--jason", "/nope"], "--json"),
        (["charge", "--wiat", "/nope", "memory=1"], "--wait"),
    ],
)
def test_an_error_suggests_the_nearest_option(words: list[str], meant: str) -> None:
    done = run_here(*words)
    assert done.returncode == 2
    assert "Did you mean" in done.stderr and meant in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["get", "{}", "memroy.usage"],
        ["set", "{}", "memroy.limit=1"],
        ["charge", "{}", "memroy=1"],
        ["uncharge", "{}", "MEMORY=1"],
        ["wait", "{}", "memroy=1"],
        ["tree", "{}", "-r", "memroy"],
        ["top", "{}", "-r", "memroy", "-n", "1"],
    ],
    ids=lambda words: words[0],
)
def test_an_error_suggests_the_nearest_resource(group: GroupFiles, words: list[str]) -> None:
    error = refused(run_here(*(word.format(group.path) for word in words)), group.path)
    assert error.startswith("no resource 'm") or "MEMORY" in words[2]
    assert error.endswith(" here; there are: memory, tokens; did you mean memory?")


@pytest.mark.parametrize("transport", ["memory", "files"])
def test_an_error_in_python_suggests_the_nearest_resource(group: GroupFiles, transport: fsmount.Transport) -> None:
    with fsmount.attach(group.path, transport=transport) as attached:
        with pytest.raises(KeyError, match="did you mean memory"):
            attached["memroy"]
        with pytest.raises(KeyError, match="did you mean tokens"):
            attached.charge(token=1)
        with pytest.raises(KeyError, match="no resource None here"):
            attached[None]  # type: ignore[index]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("memory.usge", "usage"),
        ("memory.usage_in_bytes", "usage"),
        ("memory.fail_cnt", "failcnt"),
        ("memory.Limit", "limit"),
    ],
)
def test_an_error_suggests_the_nearest_key(group: GroupFiles, typed: str, meant: str) -> None:
    error = refused(run_here("get", group.path, typed), group.path)
    assert error.startswith(f"there is no {typed}; the keys of memory are: usage, ")
    assert error.endswith(f"; did you mean memory.{meant}?")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("wbe", "web"), ("wbe/api", "web/api"), ("wbe/other", "web"), ("web/apo", "web/api"), ("WEB", "web")],
)
def test_an_error_suggests_the_nearest_group(group: GroupFiles, web: GroupFiles, typed: str, meant: str) -> None:
    path = f"{group.path}/{typed}"
    error = refused(run_here("charge", path, "memory=1"), path)
    assert error == f"there is no such directory; did you mean {group.path}/{meant}?"
    assert web.usage == 0


def test_the_suggestion_for_a_relative_path_is_relative(
    group: GroupFiles, web: GroupFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(group.path)
    assert refused(run_here("get", "wbe"), "wbe") == "there is no such directory; did you mean web?"
    monkeypatch.chdir(group.path.parent)
    typed = f"{group.path.name}/wbe/"
    assert refused(run_here("get", typed), typed).endswith(f"did you mean {group.path.name}/web?")


def test_an_error_suggests_no_group_if_none_is_near_or_the_path_is_in_no_tree(web: GroupFiles, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    for path in (f"{web.path}/xyzzy", tmp_path / "wbe"):
        error = refused(run_here("get", path), path)
        assert error == "there is no such directory; mkdir makes a group in a mounted tree"


@pytest.mark.parametrize("transport", ["memory", "files"])
def test_an_error_in_python_suggests_the_nearest_group(
    group: GroupFiles, web: GroupFiles, transport: fsmount.Transport
) -> None:
    path = os.fspath(group.path / "wbe")
    with pytest.raises(FileNotFoundError, match=f"there is no such group; did you mean {web.path}") as error:
        fsmount.attach(path, transport=transport)
    assert error.value.filename == path


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("bacth = 0", "batch"),
        ('["/web"]\nmemroy.limit = 1', "memory"),
        ('["/web"]\nmemory.limt = 1', "limit"),
        ('["/web"]\nownr = "root"', "owner"),
        ('["/web"]\nfiles."memory.leese".mode = "0600"', "memory.lease"),
        ("[capacity]\ngroup = 5", "groups"),
    ],
)
def test_an_error_in_a_description_suggests_the_nearest_name(tmp_path: Path, text: str, meant: str) -> None:
    file = tmp_path / "tree.toml"
    file.write_text(text + "\n")
    done = run_here("mount", tmp_path, "--config", file)
    assert done.returncode == 1
    assert done.stderr.endswith(f"; did you mean {meant}?\n"), done.stderr


def test_an_error_suggests_the_nearest_option_of_fuse(place: Place) -> None:
    error = refused(run_here("mount", place.path, "-o", "alow_other"), place.path)
    assert error == "FUSE does not know the option alow_other: correct -o; did you mean allow_other?"
