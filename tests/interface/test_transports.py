"""One interface for both transports: the same methods, values, texts and errors."""

from __future__ import annotations

import errno
import inspect
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, get_args

import pytest

import fsmount
from tests.mounts import GroupFiles

TRANSPORTS: tuple[fsmount.Transport, ...] = ("memory", "files")


@pytest.fixture(params=TRANSPORTS)
def attached(request: pytest.FixtureRequest, group: GroupFiles) -> Iterator[fsmount.Group]:
    with fsmount.attach(group.path, transport=request.param) as attached:
        yield attached


@pytest.fixture
def both(group: GroupFiles) -> Iterator[tuple[fsmount.Group, fsmount.Group]]:
    """The group through the region and through its files."""
    with (
        fsmount.attach(group.path, transport="memory") as memory,
        fsmount.attach(group.path, transport="files") as files,
    ):
        yield memory, files


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


# ---- the methods


def members(kind: type, implementation: type) -> Iterator[tuple[str, Any, Any]]:
    """The name of each public member, and the member of the interface and of its implementation."""
    for name in sorted(public(dir(kind))):
        yield name, inspect.getattr_static(kind, name), inspect.getattr_static(implementation, name)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_method_has_the_parameters_and_the_docstring_of_the_interface(
    group: GroupFiles, transport: fsmount.Transport
) -> None:
    with fsmount.attach(group.path, transport=transport) as attached:
        for kind, implementation in ((fsmount.Group, type(attached)), (fsmount.Counter, type(attached["memory"]))):
            assert not inspect.isabstract(implementation)
            for name, declared, implemented in members(kind, implementation):
                assert first_line(implementation, name) == first_line(kind, name), name
                if callable(declared):
                    assert_accepts(implemented, declared, name)


def first_line(kind: type, name: str) -> str:
    text = inspect.getdoc(getattr(kind, name))
    assert text, f"{kind.__name__}.{name} has no docstring"
    return text.partition("\n")[0]


def assert_accepts(implemented: Any, declared: Any, name: str) -> None:
    """Every parameter of the interface, alike; any other has a default."""
    wanted = inspect.signature(declared).parameters
    found = inspect.signature(implemented).parameters
    for parameter in wanted.values():
        alike = found[parameter.name]
        assert (alike.kind, alike.default) == (parameter.kind, parameter.default), f"{name}: {parameter}"
    more = [found[other] for other in found if other not in wanted]
    assert all(parameter.default is not parameter.empty for parameter in more), name


def test_dir_lists_only_the_interface(attached: fsmount.Group) -> None:
    for thing, kind in ((attached, fsmount.Group), (attached["memory"], fsmount.Counter)):
        assert public(dir(thing)) == set(dir(thing)) - {name for name in dir(thing) if name.startswith("_")}
        assert public(dir(thing)) == public(dir(kind))
    assert dir(fsmount) == sorted(fsmount.__all__)


def test_a_group_and_its_relatives_are_of_the_public_types(attached: fsmount.Group) -> None:
    child = attached.mkdir("child")
    try:
        assert isinstance(attached["memory"], fsmount.Counter)
        assert all(
            isinstance(found, fsmount.Group) for found in (attached, child, attached.child("child"), attached.parent)
        )
        assert attached["memory"].group == attached and attached["memory"].resource == "memory"
        with child.attach() as again:
            again["memory"].charge(2)
            assert [type(line) for line in again["memory"].holders()] == [fsmount.HolderLine]
            assert [type(row) for row in again["memory"].snapshot()] == [fsmount.CounterSnapshot]
        child["memory"].limit = 1
        assert not child["memory"].try_charge(2)
        assert [type(refusal) for refusal in child["memory"].why()] == [fsmount.Refusal]
        assert type(child["memory"].probe(2)) is fsmount.Probe
        child.close()
    finally:
        attached.rmdir("child")


def test_the_literals_are_the_accepted_words(group: GroupFiles) -> None:
    for transport in get_args(fsmount.Transport):
        for on_exit in get_args(fsmount.OnExit):
            fsmount.attach(group.path, transport=transport, on_exit=on_exit).close()
    with pytest.raises(ValueError, match="transport is"):
        fsmount.attach(group.path, transport="pigeon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_exit is"):
        fsmount.attach(group.path, on_exit="forget")  # type: ignore[arg-type]


def charge_one(group: fsmount.Group) -> int:
    """mypy checks in scripts/lint that attach() fits here."""
    group["memory"].charge(1)
    counter: fsmount.Counter = group["memory"]
    return counter.held


def test_a_function_of_a_group_accepts_the_result_of_attach(group: GroupFiles) -> None:
    for transport in get_args(fsmount.Transport):
        with fsmount.attach(group.path, transport=transport) as attached:
            assert charge_one(attached) == 1


# ---- how they show themselves


class Table(HTMLParser):
    """The cells of a table, by row; every element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.caption = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1] == "caption":
            self.caption += data
        elif self._open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


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
    head = ["resource", "usage", "limit", "max_usage", "failcnt"]
    row = ["memory", "4", "10", "4", "1"]
    table = Table(memory._repr_html_())
    assert (table.caption, table.rows) == (attached.path, [head, row])
    table = Table(attached._repr_html_())
    assert (table.caption, table.rows) == (attached.path, [head, row, ["tokens", "0", "max", "0", "0"]])


def test_a_name_cannot_break_the_html(attached: fsmount.Group) -> None:
    child = attached.mkdir('<b>&"')
    try:
        assert Table(child._repr_html_()).caption == child.path
    finally:
        attached.rmdir('<b>&"')


def test_a_removed_group_and_a_closed_one_can_be_shown(attached: fsmount.Group) -> None:
    child = attached.mkdir("child")
    memory, path = child["memory"], child.path
    attached.rmdir("child")
    assert (repr(child), repr(memory)) == (f"<Group {path}: removed>", f"<Counter {path}: removed>")
    assert Table(child._repr_html_()).rows == Table(memory._repr_html_()).rows == [["removed"]]
    attached.close()
    assert repr(attached["tokens"]) == f"<Counter {attached.path}: tokens usage=0 limit=max>"


# ---- the same answers


def outcome(action: Callable[[fsmount.Group], object], group: fsmount.Group) -> object:
    try:
        result = action(group)
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        return type(error), getattr(error, "errno", None), str(error)
    return result.path if isinstance(result, fsmount.Group) else result


def make_and_remove(name: Any, **options: int) -> Callable[[fsmount.Group], object]:
    def act(group: fsmount.Group) -> object:
        made = group.mkdir(name, **options)
        path = made.path
        status = os.stat(path)
        group.rmdir(name)
        return path, oct(status.st_mode), status.st_uid, status.st_gid, made.exists

    return act


def rename_there_and_back(new: Any) -> Callable[[fsmount.Group], object]:
    def act(group: fsmount.Group) -> object:
        group.rename("child", new)
        path = group.child(new).path
        group.rename(new, "child")
        return path

    return act


def of_a_removed_group(action: Callable[[fsmount.Group], object]) -> Callable[[fsmount.Group], object]:
    def act(group: fsmount.Group) -> object:
        gone = group.mkdir("gone")
        group.rmdir("gone")
        return action(gone)

    return act


NAMES = [
    "", ".", "..", " ", "a/b", "a\nb", "a\0b", "x" * 255, "x" * 256, "child", "memory.stat", "lease", ".fsmount",
    b"bytes", b"\xff", "child/../child", 3, None,
]  # fmt: skip
ACTIONS: dict[str, Callable[[fsmount.Group], object]] = {
    **{f"mkdir({name!r:.20})": make_and_remove(name) for name in NAMES},
    **{f"mkdir with mode {mode:o}": make_and_remove("made", mode=mode) for mode in (0o700, 0o755, 0o777, 0o2755)},
    **{f"child({name!r:.20})": lambda group, name=name: group.child(name) for name in NAMES},  # type: ignore[misc]
    **{f"rename to {name!r:.20}": rename_there_and_back(name) for name in NAMES},
    "rename of no group": lambda group: group.rename("nothing", "new"),
    "rmdir of no group": lambda group: group.rmdir("nothing"),
    "rmdir of a file": lambda group: group.rmdir("memory.stat"),
    "children": lambda group: sorted(child.path for child in group.children()),
    "parent of a child": lambda group: group.child("child").parent,
    "names": lambda group: (group.name, group.child("child").name),
    "units": lambda group: (dict(group.units), list(group), "memory" in group),
    "no resource": lambda group: group["nothing"],
    "wrong on_exit": lambda group: group.attach(on_exit="forget"),  # type: ignore[arg-type]
    "a limit below 0": lambda group: setattr(group["memory"], "limit", -1),
    "a limit that is text": lambda group: setattr(group["memory"], "limit", "3"),
    "a limit that is a bool": lambda group: setattr(group["memory"], "limit", True),
    "a limit above all": lambda group: setattr(group["memory"], "limit", 1 << 64),
    "uncharge_common of too much": lambda group: group["memory"].uncharge_common(1),
    "probe": lambda group: group["memory"].probe(5),
    "events": lambda group: group["memory"].events(),
    "a removed group's usage": of_a_removed_group(lambda group: group["memory"].usage),
    "a removed group's name": of_a_removed_group(lambda group: group.name),
    "a removed group's parent": of_a_removed_group(lambda group: group.parent),
    "a removed group's children": of_a_removed_group(lambda group: group.children()),
    "a removed group's child": of_a_removed_group(lambda group: group.child("a")),
    "mkdir in a removed group": of_a_removed_group(lambda group: group.mkdir("a")),
    "rmdir in a removed group": of_a_removed_group(lambda group: group.rmdir("a")),
    "a charge of a removed group": of_a_removed_group(lambda group: group["memory"].charge(1)),
    "attach to a removed group": of_a_removed_group(lambda group: group.attach()),
    "the last path of a removed group": of_a_removed_group(lambda group: (group.last_path(), group.exists)),
}


@pytest.mark.parametrize("what", ACTIONS)
def test_an_action_has_the_same_outcome(both: tuple[fsmount.Group, fsmount.Group], what: str) -> None:
    memory, files = both
    memory.mkdir("child")
    try:
        assert outcome(ACTIONS[what], files) == outcome(ACTIONS[what], memory)
    finally:
        memory.rmdir("child")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_does_not_change_the_mode_of_a_group(attached: fsmount.Group, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = attached.mkdir("made", 0o750)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o750
    attached.rmdir("made")


def test_rmdir_says_why_a_group_is_busy(both: tuple[fsmount.Group, fsmount.Group]) -> None:
    memory, files = both
    child = memory.mkdir("child")

    def reasons() -> set[object]:
        found = {outcome(lambda group: group.rmdir("child"), group) for group in both}
        assert all(isinstance(reason, tuple) and reason[1] == errno.EBUSY for reason in found)
        return found

    child.mkdir("grandchild")
    assert len(reasons()) == 1 and "1 groups in it" in str(reasons())
    child.rmdir("grandchild")
    child["tokens"].charge_common(3)
    assert len(reasons()) == 1 and "3 of tokens are charged to it" in str(reasons())
    child["tokens"].force_empty()
    with files.child("child").attach() as holder:
        holder["memory"].charge(1)
        assert len(reasons()) == 1 and f"live holders, processes {os.getpid()}" in str(reasons())
    files.rmdir("child")
    assert not child.exists


@contextmanager
def two_groups(group: fsmount.Group) -> Iterator[tuple[str, str]]:
    paths = [group.mkdir(name).path for name in ("first", "second")]
    try:
        yield paths[0], paths[1]
    finally:
        for name in ("first", "second"):
            for child in group.child(name).children():
                child["memory"].force_empty()
                group.child(name).rmdir(child.name)
            group.child(name)["memory"].force_empty()
            group.rmdir(name)


def random_action(rng: random.Random) -> Callable[[fsmount.Group], object]:
    """One call of the interface; its result does not name the group."""
    amount, name = rng.randrange(12), rng.choice("abc")
    new = rng.choice("abc")
    return rng.choice(
        [
            lambda group: group["memory"].try_charge(amount),
            lambda group: group["memory"].uncharge(amount),
            lambda group: group["memory"].charge(amount),
            lambda group: group.charge(memory=amount, tokens=1),
            lambda group: group.uncharge(memory=amount, tokens=1),
            lambda group: group["memory"].give(amount),
            lambda group: group["memory"].take(amount),
            lambda group: group["memory"].charge_common(amount),
            lambda group: group["memory"].uncharge_common(amount),
            lambda group: group["memory"].force_empty(),
            lambda group: setattr(group["memory"], "limit", 3 * amount),
            lambda group: setattr(group["memory"], "soft_limit", amount),
            lambda group: group["memory"].reset_failcnt(),
            lambda group: group["memory"].reset_max_usage(),
            lambda group: group.mkdir(name).name,
            lambda group: group.rmdir(name),
            lambda group: group.rename(name, new),
            lambda group: group.child(name)["memory"].charge_common(amount),
            lambda group: sorted(child.name for child in group.children()),
            # An attachment in the region is a holder at once; one through files is a holder from its first charge on.
            lambda group: [(line.pid, line.held) for line in group["memory"].holders() if line.held],
            lambda group: (group["memory"].margin, group["memory"].soft_limit_excess, group["memory"].held),
            lambda group: group["memory"].probe(amount)._replace(group=""),
        ]
    )


#: The values of R.stat that do not depend on stock.
_EXACT = ("usage", "usage_local", "common", "limit", "soft_limit", "margin", "failcnt")


def test_random_calls_have_the_same_results(attached: fsmount.Group, seed: int, soak: bool) -> None:
    """The same calls on two groups, one through each transport: equal results, errors and values."""
    rng = random.Random(seed)
    with two_groups(attached) as paths:
        groups = [fsmount.attach(path, transport=how) for path, how in zip(paths, TRANSPORTS, strict=True)]
        try:
            for _ in range(20_000 if soak else 250):
                action = random_action(rng)
                results = []
                for group in groups:
                    result = str(outcome(action, group)).replace(group.path, "")
                    results.append((result, [group["memory"].stat()[key] for key in _EXACT]))
                assert results[0] == results[1]
        finally:
            for group in groups:
                group.close()
