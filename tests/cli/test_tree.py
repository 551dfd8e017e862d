"""fsmount tree: the hierarchy on a terminal, elsewhere, and as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.cli.place import refused, run_here
from tests.cli.terminal import fsmount
from tests.mounts import STAT_KEYS, GroupFiles, Mount


def printed(*arguments: object) -> list[str]:
    done = run_here("tree", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [line.rstrip() for line in done.stdout.splitlines()]


def test_tree_shows_usage_and_limits(furnished: GroupFiles) -> None:
    done = run_here("tree", "web", cwd=furnished.path)
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "group      resource   usage   limit",
        "web        memory      950K    1.0M  ███████████░   92%",
        "│          tokens         3      10  ███░░░░░░░░░   30%",
        "├─ api     memory      950K     max",
        "│          tokens         0     max",
        "└─ static  memory         0     max",
        "           tokens         3     max",
    ]


def test_one_resource_gives_one_line_for_each_group(furnished: GroupFiles) -> None:
    lines = printed(furnished.path, "-r", "tokens")
    assert [line.split()[-2:] for line in lines[1:]] == [
        ["3", "max"],
        ["0", "max"],
        ["███░░░░░░░░░", "30%"],
        ["0", "max"],
        ["3", "max"],
    ]
    assert refused(run_here("tree", furnished.path, "-r", "beans"), furnished.path).startswith(
        "no resource 'beans' here"
    )


def test_json_has_every_number_of_every_group(furnished: GroupFiles) -> None:
    found = json.loads("".join(printed(furnished.path, "--json")))
    below = ["", "/batch", "/web", "/web/api", "/web/static"]
    assert [node["group"] for node in found] == [str(furnished.path) + path for path in below]
    assert all(list(node["counters"]) == list(furnished.units) for node in found)
    assert all(list(stat) == STAT_KEYS for node in found for stat in node["counters"].values())
    assert [node["counters"]["memory"]["usage"] for node in found] == [1950 << 10, 1000 << 10, 950 << 10, 950 << 10, 0]


def test_a_terminal_gets_colours_and_shortened_lines(furnished: GroupFiles) -> None:
    (furnished.path / "web" / ("long" * 50)).mkdir()
    with fsmount("tree", furnished.path) as terminal:
        assert terminal.end() == 0
        assert terminal.until_shown("92%").endswith("950K    1.0M  ███████████░   92%")
        assert terminal.colours("92%") == {"red"} and terminal.colours("30%") == {"green"}
        assert re.fullmatch(r"   ├─ (long)+l?o?n?g?…  memory         0     max", terminal.until_shown("longlong"))
        assert len(terminal.text.splitlines()) == 13  # the terminal would wrap a line that is too long


def test_output_without_a_terminal_has_no_colours_and_full_names(furnished: GroupFiles) -> None:
    (furnished.path / "web" / ("long" * 50)).mkdir()
    lines = printed(furnished.path)
    assert [line for line in lines if "long" * 50 in line]
    assert not [line for line in lines if "\x1b" in line]


def test_tree_escapes_unprintable_characters_of_names(group: GroupFiles) -> None:
    for name in (b"\x1b]0;title\x07", b"\xff", "a\u202eb".encode(), b"[bold]x"):
        os.mkdir(os.fsencode(group.path) + b"/" + name)
    text = "\n".join(printed(group.path))
    assert r"─ \x1b]0;title\x07" in text and r"─ \udcff" in text and r"─ a\u202eb" in text and "─ [bold]x " in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_an_ascii_encoding_gets_ascii_lines(furnished: GroupFiles) -> None:
    command = [sys.executable, "-m", "fsmount", "tree", str(furnished.path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"|- batch" in done.stdout and b"`- web" in done.stdout and b"###########." in done.stdout


def test_files_and_region_give_the_same_output(furnished: GroupFiles, mount: Mount) -> None:
    from_region = [printed(furnished.path), printed(furnished.path / "web", "--json")]
    with mount.without_region():
        assert [printed(furnished.path), printed(furnished.path / "web", "--json")] == from_region


def test_get_and_top_give_the_same_names_and_numbers(furnished: GroupFiles) -> None:
    web = furnished.path / "web"
    (of_tree, *_) = json.loads(run_here("tree", web, "--json").stdout)
    (of_top, *_) = json.loads(run_here("top", web, "--json", "-n", "1", "-s", "name").stdout)["groups"]
    of_get = json.loads(run_here("get", web, "--json").stdout)
    assert of_tree == {"group": str(web), "counters": of_get}
    assert of_top == {"group": str(web)} | of_get["memory"]


@pytest.mark.user
def test_tree_shows_groups_in_a_directory_that_its_mode_closes(furnished: GroupFiles, mount: Mount) -> None:
    shown = [printed(furnished.path), printed(furnished.path, "--json")]
    closed = furnished.path / "web"
    closed.chmod(0)
    try:
        with mount.without_region():
            assert [printed(furnished.path), printed(furnished.path, "--json")] == shown
    finally:
        closed.chmod(0o755)


def test_json_of_many_groups_takes_a_few_requests(group: GroupFiles, mount: Mount) -> None:
    for number in range(50):
        group.mkdir(f"group{number}")
    with mount.without_region():
        before = mount.requests()
        assert len(json.loads("".join(printed(group.path, "--json")))) == 51
        assert mount.requests() - before < 50
