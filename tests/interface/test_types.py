"""The public types, as a type checker sees them.

mypy checks this file in scripts/lint, and so proves it: each assert_type() is exact, and an ignore that ignores no
error is an error itself.  Here the functions also run, through both transports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, assert_type, get_args

import pytest

import fsmount
from tests.mounts import GroupFiles


def free(group: fsmount.Group) -> int:
    return group["memory"].stat()["hierarchical_margin"]


def test_a_function_of_a_group_accepts_the_result_of_attach(group: GroupFiles) -> None:
    for transport in get_args(fsmount.Transport):
        for on_exit in get_args(fsmount.OnExit):
            with fsmount.attach(group.path, transport=transport, on_exit=on_exit) as attached:
                assert free(attached) == fsmount.UNLIMITED
    with assert_type(fsmount.attach(bytes(group.path)), fsmount.Group) as attached:
        assert free(attached) == fsmount.UNLIMITED
    with fsmount.Tree.create() as tree:
        assert free(tree.root) == free(tree.root.attach()) == fsmount.UNLIMITED


def test_the_options_are_literals(group: GroupFiles) -> None:
    on_exit: Literal["release", "keep"] = "keep"
    transport: Literal["auto", "memory", "files"] = "files"
    public_on_exit: fsmount.OnExit = on_exit
    public_transport: fsmount.Transport = transport
    assert_type(public_on_exit, Literal["release", "keep"])
    assert_type(public_transport, Literal["auto", "memory", "files"])
    assert get_args(fsmount.OnExit) == ("release", "keep")
    assert get_args(fsmount.Transport) == ("auto", "memory", "files")
    fsmount.attach(group.path, on_exit=on_exit, transport=transport).close()


def test_another_word_is_an_error_for_a_type_checker_and_at_run_time(group: GroupFiles) -> None:
    word: str = "memory"
    with pytest.raises(ValueError, match="transport is"):
        fsmount.attach(group.path, transport="pigeon")  # type: ignore[arg-type]
    fsmount.attach(group.path, transport=word).close()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_exit is"):
        fsmount.attach(group.path, on_exit="forget")  # type: ignore[arg-type]
    with fsmount.attach(group.path) as attached, pytest.raises(ValueError, match="on_exit is"):
        attached.attach(on_exit="forget")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path"):
        fsmount.attach(3)  # type: ignore[arg-type]


def test_a_group_has_these_types(attached: fsmount.Group) -> None:
    assert_type(attached.path, str)
    assert_type(attached.last_path(), str)
    assert_type(attached.name, str)
    assert_type(attached.parent, fsmount.Group | None)
    assert_type(attached.units, Mapping[str, str])
    assert_type(attached.resources, tuple[str, ...])
    assert_type(list(attached), list[str])
    assert_type(attached.exists, bool)
    assert_type(attached.closed, bool)
    assert_type(attached.children(), Sequence[fsmount.Group])
    made = assert_type(attached.mkdir("child", mode=0o700), fsmount.Group)
    assert_type(attached.child(b"child"), fsmount.Group)
    assert_type(made.attach(on_exit="keep"), fsmount.Group).close()
    with assert_type(attached.hold(memory=1), AbstractContextManager[None]):
        attached.rename("child", "renamed")
    with attached as entered:
        assert_type(entered, fsmount.Group)
        entered.rmdir("renamed")


def test_a_counter_has_these_types(attached: fsmount.Group) -> None:
    memory = assert_type(attached["memory"], fsmount.Counter)
    assert_type(memory.group, fsmount.Group)
    assert_type(memory.resource, str)
    assert_type(memory.unit, str)
    memory.charge(2, wait=True, timeout=1.5)
    memory.uncharge(2)
    assert_type(memory.try_charge(1), bool)
    assert_type(memory.charge_nofail(1), bool)
    assert_type(memory.held, int)
    assert_type(memory.usage + memory.limit + memory.soft_limit + memory.max_usage + memory.failcnt, int)
    assert_type(memory.margin + memory.soft_limit_excess, int)
    assert_type(memory.stat(), dict[str, int])
    assert_type(memory.events(), dict[str, int])
    assert_type(memory.holders(), list[fsmount.HolderLine])
    assert_type(memory.snapshot(), list[fsmount.CounterSnapshot])
    assert_type(memory.why(), list[fsmount.Refusal])
    assert_type(memory.probe(1), fsmount.Probe)
    with assert_type(memory.hold(1, wait=True), AbstractContextManager[None]):
        memory.limit = memory.soft_limit = 10


def test_a_wrong_amount_is_an_error_for_a_type_checker_and_at_run_time(attached: fsmount.Group) -> None:
    memory = attached["memory"]
    with pytest.raises(TypeError):
        memory.charge("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        memory.charge(amount=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        memory.try_charge(1, wait=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        memory.limit = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        memory.usage = 0  # type: ignore[misc]
    with pytest.raises(AttributeError):
        attached.path = "/"  # type: ignore[misc]
    with pytest.raises(TypeError):
        attached.charge({"memory": "1"})  # type: ignore[dict-item]


def internals_are_errors(group: fsmount.Group) -> None:
    """Never called: the parts of one transport that no program may use, as dir() does not list them."""
    _ = group.tree  # type: ignore[attr-defined]
    _ = group.directory  # type: ignore[attr-defined]
    _ = group["memory"].index  # type: ignore[attr-defined]
    _ = group["memory"].watch  # type: ignore[attr-defined]
    group.mkdir("child", uid=0)  # type: ignore[call-arg]
    group.parent.path  # type: ignore[union-attr] # noqa: B018
    fsmount.Group()  # type: ignore[abstract]
