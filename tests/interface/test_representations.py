"""How groups and counters show themselves: repr(), and a table of HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

import fsmount
from tests.mounts import GroupFiles, mounted

#: Elements of a table, and the elements in which each of them may be.
_INSIDE = {
    "table": {""},
    "caption": {"table"},
    "thead": {"table"},
    "tbody": {"table"},
    "tr": {"table", "thead", "tbody"},
    "th": {"tr"},
    "td": {"tr"},
}

HEAD = ["resource", "usage", "limit", "max_usage", "failcnt"]


class Table(HTMLParser):
    """A single table without attributes, comments or anything unclosed; its caption, and its cells by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.caption = ""
        self.rows: list[list[str]] = []
        self._open = [""]
        self._tables = 0
        self.feed(text)
        self.close()
        assert self._open == [""] and self._tables == 1

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert self._open[-1] in _INSIDE[tag] and not attrs
        self._open.append(tag)
        self._tables += tag == "table"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1] == "caption":
            self.caption += data
        else:
            assert self._open[-1] in ("th", "td"), data
            self.rows[-1][-1] += data

    def unexpected(self, data: str) -> None:
        pytest.fail(f"in the table: {data}")

    handle_comment = unexpected
    handle_pi = unexpected
    unknown_decl = unexpected

    def handle_decl(self, decl: str) -> None:
        self.unexpected(decl)


def table(thing: fsmount.Group | fsmount.Counter) -> tuple[str, list[list[str]]]:
    shown = Table(thing._repr_html_())
    return shown.caption, shown.rows


@contextmanager
def child_of(group: fsmount.Group, name: str) -> Iterator[fsmount.Group]:
    child = group.mkdir(name)
    try:
        yield child
    finally:
        child.close()
        group.rmdir(name)


def test_repr_shows_usage_and_limit(attached: fsmount.Group) -> None:
    memory = attached["memory"]
    memory.limit = 10
    memory.charge(4)
    assert repr(memory) == f"<Counter {attached.path}: memory usage=4 limit=10>"
    assert repr(attached) == f"<Group {attached.path}: memory usage=4 limit=10, tokens usage=0 limit=max>"


def test_html_is_a_table_of_usage_and_limit(attached: fsmount.Group) -> None:
    memory = attached["memory"]
    memory.limit = 10
    memory.charge(4)
    assert not memory.try_charge(7)
    row = ["memory", "4", "10", "4", "1"]
    assert table(memory) == (attached.path, [HEAD, row])
    assert table(attached) == (attached.path, [HEAD, row, ["tokens", "0", "max", "0", "0"]])


def test_a_counter_without_a_limit_shows_max(attached: fsmount.Group) -> None:
    memory = attached["memory"]
    assert repr(memory) == f"<Counter {attached.path}: memory usage=0 limit=max>"
    memory.limit = fsmount.UNLIMITED - 1
    assert repr(memory) == f"<Counter {attached.path}: memory usage=0 limit={2**63 - 2}>"
    memory.limit = fsmount.UNLIMITED
    assert table(memory)[1][1] == ["memory", "0", "max", "0", "0"]


@pytest.mark.parametrize("name", ['<b>&"', "<caption><script>x", "&lt;", "<!-- ", "'", "käse", "a b"])
def test_the_html_shows_any_name_as_it_is(attached: fsmount.Group, name: str) -> None:
    with child_of(attached, name) as child:
        assert table(child)[0] == table(child["memory"])[0] == child.path
        assert child.path.endswith(name)
        assert child.path in repr(child)


def test_the_html_escapes_names_that_look_like_tags(attached: fsmount.Group) -> None:
    with child_of(attached, "<table>") as outer, child_of(outer, "b") as inner:
        html = inner._repr_html_()
        assert inner.path.endswith("/<table>/b")
        assert html.count("<table>") == html.count("</table>") == 1
        assert "/&lt;table&gt;/b<" in html


def test_a_name_that_is_not_utf8_is_shown(attached: fsmount.Group) -> None:
    made = attached.mkdir(b"\xff")
    assert repr(made).startswith(f"<Group {made.path}: memory ")
    assert table(made)[0] == made.path
    attached.rmdir(b"\xff")


def test_the_html_escapes_the_names_of_resources() -> None:
    with fsmount.Tree.create(resources=["<i>&", "b:count"]) as tree:
        assert table(tree.root) == ("/", [HEAD, ["<i>&", "0", "max", "0", "0"], ["b", "0", "max", "0", "0"]])
        assert repr(tree.root["<i>&"]) == "<Counter /: <i>& usage=0 limit=max>"


def test_a_removed_group_shows_that_it_is_removed(attached: fsmount.Group) -> None:
    child = attached.mkdir("child")
    memory, path = child["memory"], child.path
    attached.rmdir("child")
    assert (repr(child), repr(memory)) == (f"<Group {path}: removed>", f"<Counter {path}: removed>")
    assert table(child) == table(memory) == (path, [["removed"]])


def test_a_renamed_group_shows_its_new_path(attached: fsmount.Group) -> None:
    child = attached.mkdir("old")
    memory = child["memory"]
    attached.rename("old", "new")
    path = f"{attached.path}/new"
    assert repr(memory) == f"<Counter {path}: memory usage=0 limit=max>"
    assert repr(child).startswith(f"<Group {path}: ")
    assert table(child)[0] == table(memory)[0] == path
    attached.rmdir("new")


def test_an_ended_attachment_still_shows_its_group(attached: fsmount.Group) -> None:
    attached["tokens"].charge(3)
    attached["memory"].charge_common(2)
    attached.close()
    assert repr(attached["tokens"]) == f"<Counter {attached.path}: tokens usage=0 limit=max>"
    assert repr(attached) == f"<Group {attached.path}: memory usage=2 limit=max, tokens usage=0 limit=max>"
    assert [row[:3] for row in table(attached)[1][1:]] == [["memory", "2", "max"], ["tokens", "0", "max"]]


def test_a_group_without_its_mount_shows_the_reason(group: GroupFiles) -> None:
    with mounted() as tree:
        attached = fsmount.attach(tree.path, transport="files")
        attached.close()
    assert repr(attached) == f"<Group {tree.path}: it was unmounted: `fsmount mount` mounts it again>"
    assert table(attached["memory"])[1] == [["it was unmounted: `fsmount mount` mounts it again"]]


def test_a_group_of_a_closed_tree_shows_the_reason() -> None:
    with fsmount.Tree.create() as tree:
        root = tree.root
    assert repr(root) == f"<Group {root.last_path()}: the tree was closed>"
    assert table(root["memory"])[1] == [["the tree was closed"]]
