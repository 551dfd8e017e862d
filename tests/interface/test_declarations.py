"""The interface declares everything public, and both transports implement it: signatures, docstrings and results."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

import fsmount
from fsmount import files, shm

IMPLEMENTATIONS: list[tuple[type, type]] = [
    (fsmount.Group, shm.Group),
    (fsmount.Group, files.LeaseGroup),
    (fsmount.Counter, shm.Counter),
    (fsmount.Counter, files.LeaseCounter),
]

GROUP = {
    "attach", "charge", "child", "children", "close", "closed", "detach", "exists", "hold", "last_path", "mkdir",
    "name", "parent", "path", "rename", "resources", "rmdir", "uncharge", "units", "wait_charge",
}  # fmt: skip
COUNTER = {
    "charge", "charge_common", "charge_nofail", "events", "failcnt", "force_empty", "give", "group", "held", "hold",
    "holders", "limit", "margin", "max_usage", "probe", "reset_failcnt", "reset_max_usage", "resource", "snapshot",
    "soft_limit", "soft_limit_excess", "stat", "take", "try_charge", "uncharge", "uncharge_common", "unit", "usage",
    "wait_charge", "why",
}  # fmt: skip
#: The special methods that belong to the interface.
SPECIAL: dict[type, list[str]] = {
    fsmount.Group: ["__getitem__", "__iter__", "__repr__", "_repr_html_", "__dir__", "__enter__", "__exit__"],
    fsmount.Counter: ["__repr__", "_repr_html_", "__dir__"],
}

each = pytest.mark.parametrize(
    ("kind", "implementation"), IMPLEMENTATIONS, ids=[f"{of.__module__}.{of.__name__}" for _, of in IMPLEMENTATIONS]
)


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def members(kind: type, implementation: type) -> Iterator[tuple[str, Any, Any]]:
    """The name of each member of the interface, as declared and as implemented."""
    for name in [*sorted(public(dir(kind))), *SPECIAL[kind]]:
        yield name, inspect.getattr_static(kind, name), inspect.getattr_static(implementation, name)


def test_the_interface_declares_these_names() -> None:
    assert public(dir(fsmount.Group)) == GROUP
    assert public(dir(fsmount.Counter)) == COUNTER


@each
def test_a_transport_implements_the_whole_interface(kind: type, implementation: type) -> None:
    assert issubclass(implementation, kind)
    assert not inspect.isabstract(implementation)


@each
def test_a_method_has_the_parameters_of_the_interface(kind: type, implementation: type) -> None:
    for name, declared, implemented in members(kind, implementation):
        if callable(declared):
            assert parameters(implemented) == parameters(declared, like=implemented), name
            assert inspect.iscoroutinefunction(implemented) == inspect.iscoroutinefunction(declared), name


def parameters(method: Any, *, like: Any = None) -> list[inspect.Parameter]:
    """The parameters with kinds, defaults and annotations.

    A method in C has no annotations at run time.  They are in the engine's .pyi file, which mypy compares with the
    interface.
    """
    found = list(inspect.signature(method).parameters.values())
    if inspect.ismethoddescriptor(method if like is None else like):
        return [parameter.replace(annotation=parameter.empty) for parameter in found]
    return found


@each
def test_a_property_can_be_set_if_the_interface_says_so(kind: type, implementation: type) -> None:
    for name, declared, implemented in members(kind, implementation):
        if not callable(declared):
            assert inspect.isdatadescriptor(implemented), name
            # group and resource are slots in the region's transport, for speed; type checkers see them as properties
            if isinstance(implemented, property):
                assert (implemented.fset is None) == (declared.fset is None), name


@each
def test_a_member_has_the_docstring_of_the_interface(kind: type, implementation: type) -> None:
    for name in sorted(public(dir(kind))):
        text = inspect.getdoc(getattr(kind, name))
        assert text, f"{name} has no docstring"
        assert inspect.getdoc(getattr(implementation, name)) == text, name


def test_dir_lists_only_the_interface(attached: fsmount.Group) -> None:
    for thing, names in ((attached, GROUP), (attached["memory"], COUNTER)):
        assert {name for name in dir(thing) if not name.startswith("__")} == names
        assert all(hasattr(thing, name) for name in dir(thing))


def test_dir_of_the_package_lists_only_the_public_names() -> None:
    assert dir(fsmount) == sorted(fsmount.__all__)
    assert all(hasattr(fsmount, name) for name in dir(fsmount))
    undocumented = {"UNLIMITED", "OnExit", "Transport", "__version__"}  # values and aliases of types
    for name in set(dir(fsmount)) - undocumented:
        assert inspect.getdoc(getattr(fsmount, name)), name


def test_everything_that_is_returned_has_a_public_type(attached: fsmount.Group) -> None:
    child = attached.mkdir("child")
    memory = child["memory"]
    assert type(attached.children()) is list
    assert all(
        isinstance(found, fsmount.Group)
        for found in (attached, child, attached.child("child"), attached.parent, *attached.children())
    )
    assert isinstance(memory, fsmount.Counter)
    assert (memory.group, memory.resource) == (child, "memory")
    with child.attach() as again:
        assert isinstance(again, fsmount.Group)
        assert again.__enter__() is again
        again["memory"].charge(2)
        assert [type(line) for line in again["memory"].holders()] == [fsmount.HolderLine]
        assert [type(row) for row in again["memory"].snapshot()] == [fsmount.CounterSnapshot]
        memory.limit = 2
        assert not again["memory"].try_charge(2)
        (refusal,) = memory.why()
        assert type(refusal) is fsmount.Refusal
        assert {type(holder) for holder in refusal.largest} <= {fsmount.LargeHolder}
        assert type(memory.probe(2)) is fsmount.Probe
        assert type(memory.stat()) is type(memory.events()) is dict
    attached.rmdir("child")


def test_a_hold_is_a_context_manager_and_shows_nothing_else(attached: fsmount.Group) -> None:
    for hold in (attached["memory"].hold(1), attached.hold(memory=1)):
        assert isinstance(hold, AbstractContextManager)
        assert public(dir(hold)) == set()
        with hold as nothing:
            assert nothing is None
            assert attached["memory"].held == 1
