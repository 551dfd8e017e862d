"""fsmount top: sessions in a real terminal, and the output elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from fsmount.cli.commands.top.reader import pause
from fsmount.cli.commands.top.views import MINUTE, History
from fsmount.cli.ui.cells import sparkline
from fsmount.cli.ui.terminal import glyphs
from fsmount.protocol.listings import CounterSnapshot
from tests.cli.place import Place, refused, run_here
from tests.cli.terminal import Terminal, fsmount, shell
from tests.mounts import STAT_KEYS, GroupFiles, Mount

FAST = ("-d", "0.1")
DOWN, ESC = "\x1b[B", "\x1b"


def names(terminal: Terminal) -> list[str]:
    """The first word of each line of the table."""
    return [line.split()[0] for line in terminal.lines[2:-1] if line]


def row(terminal: Terminal, name: str) -> list[str]:
    """The words of a group's line; empty until it is drawn."""
    found = [line.split() for line in terminal.lines if line.startswith(f"{name} ")]
    return found[0] if found else [""] * 8


# ---- in a terminal --------------------------------------------------------------------------------------


def test_keys_sort_show_holders_set_a_limit_and_quit(furnished: GroupFiles) -> None:
    api = furnished.child("web").child("api")
    with api.lease() as lease, fsmount("top", furnished.path, *FAST) as terminal:
        lease.write("+10K")
        terminal.until(lambda: row(terminal, "web/api")[1] == "960K")
        terminal.until(lambda: terminal.lines[-1].startswith("q quit  ? help  arrows select  enter holders"))
        assert terminal.lines[0].startswith("memory of 5 groups by usage")
        assert terminal.lines[1].split() == "group usage limit share last minute stock failcnt holders".split()
        assert names(terminal)[1:] == ["batch", "web", "web/api", "web/static"]
        assert row(terminal, "web/api")[-1] == "1"

        terminal.press("s")
        terminal.until(lambda: names(terminal)[:2] == ["web", "batch"])
        assert terminal.lines[0].startswith("memory of 5 groups by share")
        terminal.press("S")
        terminal.until(lambda: names(terminal)[1:3] == ["batch", "web"])
        terminal.press(DOWN * 3)
        terminal.until(lambda: terminal.selected == "web/api")

        terminal.press("\r")
        terminal.until(lambda: row(terminal, "common")[1] == "950K")
        terminal.until(lambda: terminal.until_shown("lease:").split()[1:3] == [str(os.getpid()), "10K"])
        assert terminal.lines[0].startswith("memory: 960K, 2 holders")
        terminal.press(ESC)
        terminal.until_shown("by usage")

        terminal.press("l")
        terminal.until_shown("limit of memory in api:")
        terminal.until(lambda: terminal.lines[-1] == "enter set  esc leave it at max")
        terminal.press("2g\r")
        terminal.until(lambda: row(terminal, "web/api")[2] == "2.0G")
        assert api.limit == 2 << 30

        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_as_before


def test_a_wrong_limit_is_reported_and_nothing_changes(furnished: GroupFiles) -> None:
    web = furnished.child("web")
    with fsmount("top", web.path, *FAST) as terminal:
        terminal.until_shown("last minute")
        for typed, error in (
            ("1K", "web: the limit of memory cannot be 1K (1024 bytes): the usage is 950K"),
            ("12abc", "12abc is not an amount such as 4096, 64K or 2G"),
            ("9E", "9E is above 2^63-1"),
        ):
            terminal.press("l")
            terminal.until_shown("limit of memory in web:")
            terminal.press(f"{typed}\r")
            terminal.until(lambda error=error: any(line.startswith(error) for line in terminal.lines))  # type: ignore[misc]
            assert web.limit == 1 << 20
        terminal.press(f"l5{ESC}")
        terminal.until_shown("q quit")
        assert web.limit == 1 << 20
        terminal.press("L4K\r")
        terminal.until(lambda: web.soft_limit == 4096)


def test_colours_show_the_distance_to_the_limit(furnished: GroupFiles) -> None:
    with fsmount("top", furnished.path, "--sort", "tree", *FAST, columns=110) as terminal:
        terminal.until(lambda: (terminal.colours("92%"), terminal.colours("48%")) == ({"red"}, {"green"}))
        terminal.until(lambda: re.search(r"└─ web +950K +1.0M  ███████████░    92% +[▁▂▃▄▅▆▇█]+ ", terminal.text))
        furnished.child("batch").write("soft_limit", 1)
        terminal.until(lambda: terminal.colours("48%") == {"brown"})


def test_the_selection_follows_its_group_when_the_order_changes(furnished: GroupFiles) -> None:
    with fsmount("top", furnished.path, *FAST) as terminal:
        terminal.until_shown("web/api")
        terminal.press(DOWN)
        terminal.until(lambda: terminal.selected == "batch")
        furnished.child("batch").uncharge("900K")
        terminal.until(lambda: row(terminal, "batch")[1] == "100K")
        terminal.until(lambda: (terminal.selected, names(terminal)[3:4]) == ("batch", ["batch"]))


def test_a_key_shows_the_next_resource(furnished: GroupFiles) -> None:
    with fsmount("top", furnished.path, *FAST) as terminal:
        terminal.until_shown("memory of 5 groups")
        terminal.press("r")
        terminal.until(lambda: row(terminal, "web")[1:4] == ["3", "10", "30%"])
        assert terminal.lines[0].startswith("tokens of 5 groups")
        terminal.press("?")
        terminal.until_shown("its holders; Esc: back")


def test_long_tables_scroll_and_fill_a_resized_terminal(group: GroupFiles) -> None:
    for number in range(30):
        group.mkdir(f"group{number:02}")
    with fsmount("top", group.path, "--sort", "name", "-d", "60", columns=60, rows=12) as terminal:
        terminal.until(lambda: len(names(terminal)) == 9 and terminal.lines[-1])
        assert terminal.lines[10].startswith("group07 ")
        terminal.press("\x1b[F")
        terminal.until(lambda: terminal.selected == "group29")
        assert terminal.lines[10].startswith("group29 ")
        terminal.resize(100, 40)
        terminal.until(lambda: len(names(terminal)) == 31)
        terminal.resize(20, 4)
        terminal.until(lambda: terminal.selected == "group29")


def test_a_narrow_terminal_shows_fewer_columns_and_the_ends_of_paths(group: GroupFiles) -> None:
    deepest = group.mkdir("a-group-with-a-name")
    for name in ("below", "further", "deep", "deepest", "last"):
        deepest = deepest.mkdir(name)
    deepest.set_limit(100)
    deepest.charge(50)
    with fsmount("top", group.path, "-s", "share", *FAST, columns=40, rows=10) as terminal:
        terminal.until(lambda: terminal.lines[2].split()[1:] == ["50", "100", "50%"])
        assert terminal.lines[1].split() == "group usage limit share".split()
        assert re.fullmatch(r"…\S*/deepest/last +50 +100 +50%", terminal.lines[2])
        assert terminal.lines[0].endswith(group.path.name[-5:])
        terminal.press("s" * 5)
        terminal.until_shown("by tree")
        terminal.until(lambda: any(line.startswith("…           └─ last ") for line in terminal.lines))
        terminal.press("?")
        terminal.until_shown("by a screen")
        assert "stock" not in terminal.text
        terminal.press("\x1b[F")
        terminal.until_shown("stock        reserved, here and below")
        terminal.press(ESC)
        terminal.until_shown("by tree")


def test_wide_numbers_replace_other_columns_and_are_never_cut(group: GroupFiles) -> None:
    huge = group.mkdir("huge")
    huge.set_limit(2**63 - 2, "tokens")
    huge.charge(2**62, "tokens")
    numbers = [str(2**62), str(2**63 - 2), "50%"]
    with fsmount("top", group.path, "-r", "tokens", *FAST) as terminal:
        terminal.until(lambda: row(terminal, "huge")[1:4] == numbers)
        assert terminal.lines[1].split() == "group usage limit share last minute".split()
        assert "…" not in terminal.lines[1] + terminal.lines[3]
        terminal.press(DOWN + "\r")
        terminal.until(lambda: row(terminal, "common") == ["common", numbers[0], "█" * 12, "100%", "0"])
        terminal.resize(44, 24)
        terminal.until(lambda: row(terminal, "common") == ["common", numbers[0]])
    with fsmount("tree", group.path, "-r", "tokens", columns=60) as terminal:
        assert terminal.end() == 0
        assert terminal.until_shown("└─ huge").split()[2:] == numbers


def test_the_view_of_holders_shows_the_usage_of_groups_below(furnished: GroupFiles) -> None:
    with fsmount("top", furnished.child("web").path, *FAST) as terminal:
        terminal.until_shown("last minute")
        terminal.press("\r")
        terminal.until_shown("memory: 950K of 1.0M, 950K in the groups below, 0 holders")
        terminal.until_shown("nobody holds anything in this very group")


def test_no_color_disables_colours(furnished: GroupFiles) -> None:
    with fsmount("top", furnished.path, *FAST, NO_COLOR="1") as terminal:
        terminal.until(lambda: terminal.colours("92%") == {"default"})


def test_a_dumb_terminal_gets_one_table_of_its_width(furnished: GroupFiles) -> None:
    (furnished.path / ("long" * 50)).mkdir()
    for command in ("top", "tree"):
        with fsmount(command, furnished.path, TERM="dumb") as terminal:
            assert terminal.end() == 0
            assert b"\x1b" not in terminal.written
            assert len(terminal.text.splitlines()) == (7 if command == "top" else 13)


def test_the_shell_can_stop_and_continue_top(furnished: GroupFiles) -> None:
    with shell(furnished.path) as terminal:
        terminal.until(lambda: b"$ " in terminal.written)
        terminal.press("fsmount top . -d 0.1\n")
        terminal.until_shown("web/api")
        terminal.press("\x1a")
        terminal.until_shown("Stopped")
        terminal.press("clear; stty -a\n")
        terminal.until(lambda: re.search(r"(?<!-)\bicanon\b", terminal.text) and re.search(r" echo ", terminal.text))
        terminal.press("clear; fg\n")
        terminal.until_shown("web/api")
        terminal.press("\x03")
        terminal.until(lambda: terminal.written.endswith(b"$ "))
        terminal.press("echo status $?\n")
        terminal.until_shown("status 0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_top_and_restores_the_terminal(furnished: GroupFiles, number: signal.Signals) -> None:
    with fsmount("top", furnished.path, *FAST) as terminal:
        terminal.until_shown("web/api")
        terminal.press("l")
        terminal.until_shown("limit of memory")
        terminal.process.send_signal(number)
        assert terminal.end() == (0 if number == signal.SIGINT else -number)
        assert terminal.is_as_before


def test_top_reports_the_removal_of_a_group(furnished: GroupFiles) -> None:
    gone = furnished.mkdir("gone")
    with fsmount("top", gone.path, *FAST) as alone, fsmount("top", furnished.path, "-s", "name", *FAST) as terminal:
        alone.until_shown("last minute")
        terminal.until_shown("gone")
        terminal.press(DOWN * 2 + "\r")
        terminal.until_shown("0 holders")
        gone.path.rmdir()
        terminal.until_shown("gone: the group was removed")
        terminal.until_shown("memory of 5 groups")
        assert alone.end() == 1
        assert alone.is_as_before
        text = "".join(alone.screen.display)
        assert f"fsmount: {gone.path}: there is no such directory; mkdir makes a group in a mounted tree" in text


def test_top_ends_with_an_error_when_the_mount_ends(place: Place) -> None:
    for vanish, error in (
        (lambda: place.umount("--keep"), "it was unmounted: `fsmount mount` mounts it again"),
        (lambda: place.signal(signal.SIGKILL), "the mount has lost its daemon: `fsmount mount` takes it over"),
    ):
        place.mount()
        with (
            fsmount("top", place.path, "-d", "60") as terminal,
            fsmount("top", place.path, "--holders", "-d", "60") as holders,
        ):
            terminal.until_shown("last minute")
            holders.until_shown("0 holders")
            vanish()
            for each in (terminal, holders):
                each.press(" ")
                assert each.end() == 1
                assert each.is_as_before
                assert f"fsmount: {place.path}: {error}" in "".join(each.screen.display)


def test_top_without_the_region_reads_the_files(furnished: GroupFiles, mount: Mount) -> None:
    with mount.without_region(), fsmount("top", furnished.path, "-s", "tree", *FAST) as terminal:
        below = ["├─ batch", "└─ web", "   ├─ api", "   └─ static"]
        terminal.until(lambda: [line[:12].rstrip() for line in terminal.lines[3:7]] == below)
        furnished.child("batch").uncharge("1000K")
        terminal.until(lambda: terminal.until_shown("batch").split()[2:3] == ["0"])
        terminal.press("q")
        assert terminal.end() == 0


def test_tree_in_a_terminal_prints_colours_and_returns_to_the_shell(furnished: GroupFiles) -> None:
    with shell(furnished.path) as terminal:
        terminal.until(lambda: b"$ " in terminal.written)
        terminal.press("fsmount tree web -r memory\n")
        terminal.until(lambda: terminal.text.endswith("\n$"))
        line = terminal.until_shown("92%")
        assert line == "web          950K    1.0M  ███████████░   92%"
        assert terminal.colours("92%") == {"red"}


# ---- without a terminal ------------------------------------------------------------------------------------------


def printed(*arguments: object) -> list[str]:
    done = run_here("top", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_output_without_a_terminal_is_one_table(furnished: GroupFiles) -> None:
    found = printed(furnished.path, "--sort", "share")
    assert [line.split() for line in found[:3]] == [
        "group usage limit share stock failcnt holders".split(),
        "web 950K 1.0M ███████████░ 92% 0 0 0".split(),
        "batch 1000K 2.0M █████░░░░░░░ 48% 0 0 0".split(),
    ]
    assert len(found) == 6 and "\x1b" not in "".join(found)
    assert printed(furnished.path, "-b", "-n", "2", "-d", "0.1") == [*(table := printed(furnished.path)), "", *table]


def test_json_is_one_line_for_each_snapshot(furnished: GroupFiles) -> None:
    first, second = map(json.loads, printed(furnished.path, "--json", "-n", "2", "-d", "0.1", "-s", "name"))
    assert first["resource"] == "memory" and second["time"] - first["time"] > 0.05
    names = [str(furnished.path) + name for name in ("", "/batch", "/web", "/web/api", "/web/static")]
    assert [group["group"] for group in second["groups"]] == names
    web = first["groups"][2]
    assert list(web) == ["group", *STAT_KEYS]
    assert (web["usage"], web["limit"], web["max_usage"]) == (950 << 10, 1 << 20, 950 << 10)


def test_top_prints_the_holders_of_a_group(furnished: GroupFiles) -> None:
    with furnished.lease("tokens") as lease:
        lease.write("5")
        (_, line) = printed(furnished.path, "-r", "tokens", "--holders")
        assert re.fullmatch(rf"lease:\S+ +{os.getpid()} +5 +███████░░░░░ +62% +0", line)
        (found,) = map(json.loads, printed(furnished.path, "-r", "tokens", "--holders", "--json", "-n", "1"))
        assert found["group"] == str(furnished.path)
        assert [(holder["pid"], holder["held"]) for holder in found["holders"]] == [(os.getpid(), 5)]


def test_files_and_region_give_the_same_output(furnished: GroupFiles, mount: Mount) -> None:
    def groups(*options: str) -> object:
        return json.loads(run_here("top", furnished.path, *options, "--json", "-n", "1").stdout)["groups"]

    wanted = [("-s", "tree"), ("-r", "tokens"), ("--sort", "name")]
    from_region = [groups(*options) for options in wanted]
    with mount.without_region():
        assert [groups(*options) for options in wanted] == from_region


def test_a_snapshot_of_many_groups_through_the_files_takes_few_requests(group: GroupFiles, mount: Mount) -> None:
    for number in range(200):
        group.mkdir(f"group{number}")
    with mount.without_region():
        before = mount.requests()
        looked = json.loads(run_here("top", group.path, "--json", "-n", "1").stdout)
        assert len(looked["groups"]) == 201
        assert mount.requests() - before < 100


@pytest.mark.user
def test_top_reports_a_missing_permission_and_continues(furnished: GroupFiles) -> None:
    api = furnished.child("web").child("api")
    api.file("limit").chmod(0o444)
    api.file("holders").chmod(0)
    with fsmount("top", api.path, *FAST, columns=200) as terminal:
        terminal.until_shown("last minute")
        terminal.press("l")
        terminal.until_shown("limit of memory in api:")
        terminal.press("1G\r")
        terminal.until_wrapped(f"api: Permission denied ({api.file('limit')}); its owner or root can permit it")
        terminal.press("\r")
        terminal.until_wrapped(f"api: Permission denied ({api.file('holders')}); its owner or root can permit it")
        terminal.until_shown("memory of 1 group by usage")


def test_wide_and_unprintable_names_keep_the_columns_aligned(furnished: GroupFiles) -> None:
    for name in ("日本語", "\x1b[31mred", "long" * 30):
        (furnished.path / name).mkdir()
    with fsmount("top", furnished.path, "--sort", "name", *FAST) as terminal:
        terminal.until(lambda: len(names(terminal)) == 8 and terminal.lines[-1])
        ends = {max(at for at in range(80) if terminal.screen.buffer[row][at].data.strip()) for row in range(1, 10)}
        assert ends == {79}
        assert r"\x1b[31mred" in terminal.text and "日本語" in terminal.text.replace(" ", "")


def test_an_unknown_resource_is_an_error(group: GroupFiles) -> None:
    assert refused(run_here("top", group.path, "-r", "beans"), group.path).startswith("no resource 'beans' here")


def test_an_interrupt_ends_the_output_without_an_error(group: GroupFiles) -> None:
    command = [sys.executable, "-m", "fsmount", "top", str(group.path), "-d", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("group")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (-signal.SIGINT, "")


# ---- the last minute ------------------------------------------------------------------------------------


def seen(**usages: int) -> list[CounterSnapshot]:
    return [CounterSnapshot(ord(name), 0, name, usage, *[0] * (len(STAT_KEYS) - 1)) for name, usage in usages.items()]


def test_the_last_minute_has_the_highest_usage_of_each_twelfth() -> None:
    history = History()
    for now, usage in ((100, 1), (101, 9), (104, 2), (107, 3)):
        history.add(now, seen(a=usage))
    history.add(118, seen(a=5, b=7))
    assert history.of(ord("a"))[-4:] == [9, 3, None, 5]
    assert history.of(ord("b"))[-4:] == [None, None, None, 7]
    history.add(118 + 2 * MINUTE, seen(b=8))
    assert history.of(ord("a")) == [None] * 12


def test_a_sparkline_is_scaled_to_its_highest_value() -> None:
    drawn = glyphs("utf-8")
    assert sparkline([None, 0, 50, 100], drawn) == " ▁▅█"
    assert sparkline([0, 0], drawn) == "▁▁"
    assert sparkline([0, 8], glyphs("ascii")) == "_#"


def test_reading_takes_a_tenth_of_the_time_at_most() -> None:
    assert pause(0.01, 2.0) == pytest.approx(1.99)
    assert pause(1.0, 2.0) == pytest.approx(9.0)
