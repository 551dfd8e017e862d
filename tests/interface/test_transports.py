"""Both transports answer alike: the same results, texts and errors, whatever the state of the group."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

import fsmount
from tests.interface.outcomes import Action, outcome

Both = tuple[fsmount.Group, fsmount.Group]
State = Callable[[fsmount.Group], fsmount.Group]


# ---- names and modes

NAMES = [
    "", ".", "..", " ", "a/b", "a\nb", "a\0b", "x" * 255, "x" * 256, "child", "memory.stat", "lease", ".fsmount",
    "metrics", b"bytes", b"\xff", "\udcff", "child/../child", "käse", 3, None,
]  # fmt: skip
MODES = [0, 0o700, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o7777, 0o10755]


def made_with(name: Any, **options: int) -> Action:
    def act(group: fsmount.Group) -> object:
        made = group.mkdir(name, **options)
        status = os.stat(made.path)
        return made.path, made.name, oct(status.st_mode), status.st_uid, status.st_gid, group.rmdir(name), made.exists

    return act


def renamed_to(new: Any) -> Action:
    def act(group: fsmount.Group) -> object:
        group.rename("child", new)
        path = group.child(new).path
        group.rename(new, "child")
        return path

    return act


ON_NAMES: dict[str, Action] = {
    **{f"mkdir({name!r:.20})": made_with(name) for name in NAMES},
    **{f"mkdir with mode {mode:o}": made_with("made", mode=mode) for mode in MODES},
    **{f"child({name!r:.20})": lambda group, name=name: group.child(name) for name in NAMES},  # type: ignore[misc]
    **{f"rmdir({name!r:.20})": lambda group, name=name: group.rmdir(name) for name in NAMES[:-5]},  # type: ignore[misc]
    **{f"rename to {name!r:.20}": renamed_to(name) for name in NAMES},
}  # fmt: skip


@pytest.mark.parametrize("what", ON_NAMES)
def test_a_name_or_a_mode_has_the_same_outcome(both: Both, what: str) -> None:
    found = []
    for group in both:
        group.mkdir("child")
        found.append(outcome(ON_NAMES[what], group))
        remove_children(group)
    assert found[0] == found[1]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_does_not_change_the_mode_of_a_group(attached: fsmount.Group, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = attached.mkdir("made", 0o750)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o750
    attached.rmdir("made")


def test_rmdir_says_why_a_group_is_busy(both: Both) -> None:
    memory, files = both
    child = memory.mkdir("child")

    def reasons() -> set[object]:
        found = {outcome(lambda group: group.rmdir("child"), group) for group in both}
        assert all(isinstance(reason, tuple) and reason[2][0] == errno.EBUSY for reason in found)
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


# ---- any method, in any state


def put(counter: Any, **settings: int) -> Any:
    for name, amount in settings.items():
        setattr(counter, name, amount)


def once(hold: Any) -> Any:
    with hold:
        pass


def refusal(counter: fsmount.Counter) -> object:
    refused = counter.why(1)
    return [(line.amount, line.usage, line.limit, line.charged, line.asked, line.refused) for line in refused]


ON_A_GROUP: dict[str, Action] = {
    "path": lambda group: group.path,
    "last_path": lambda group: group.last_path(),
    "name": lambda group: group.name,
    "parent": lambda group: group.parent,
    "units": lambda group: (dict(group.units), group.resources, [*group], "memory" in group),
    "exists": lambda group: group.exists,
    "closed": lambda group: group.closed,
    "item": lambda group: group["memory"],
    "wrong item": lambda group: group["memry"],
    "item of a wrong type": lambda group: group[3],
    "equality": lambda group: (group == group, group != 3, {group} == {group}),
    "repr": repr,
    "html": lambda group: group._repr_html_(),
    "children": lambda group: group.children(),
    "child": lambda group: group.child("child"),
    "mkdir": lambda group: [group.mkdir("new"), group.mkdir("more", 0o700), *group.children()],
    "mkdir twice": lambda group: [group.mkdir("new"), group.mkdir("new")],
    "mkdir of a file": lambda group: group.mkdir("memory.stat"),
    "mkdir of a bad name": lambda group: group.mkdir("a/b"),
    "mkdir without a name": lambda group: group.mkdir(""),
    "rmdir": lambda group: [group.mkdir("new"), group.rmdir("new"), group.children()],
    "rmdir of nothing": lambda group: group.rmdir("new"),
    "rename": lambda group: [group.mkdir("a"), group.rename("a", "b"), group.children()],
    "rename of nothing": lambda group: group.rename("a", "b"),
    "rename to a sibling": lambda group: [group.mkdir("a"), group.mkdir("b"), group.rename("a", "b")],
    "rename to itself": lambda group: [group.mkdir("a"), group.rename("a", "a"), group.children()],
    "rename to a file": lambda group: [group.mkdir("a"), group.rename("a", "memory.stat")],
    "charge": lambda group: [group.charge(memory=3, tokens=2), group["memory"].held, group["tokens"].usage],
    "charge nothing": lambda group: group.charge(),
    "charge an unknown resource": lambda group: group.charge(disk=1),
    "charge twice": lambda group: group.charge({"memory": 1}, memory=1),
    "charge a number": lambda group: group.charge(1),
    "charge in turn": lambda group: [group.charge(memory=3, wait=True, timeout=1), group["memory"].held],
    "charge too much": lambda group: [put(group["memory"], limit=4), group.charge(memory=5, tokens=1)],
    "charge zero": lambda group: group.charge(memory=0),
    "uncharge": lambda group: [group.charge(memory=3), group.uncharge(memory=2), group["memory"].held],
    "uncharge too much": lambda group: [group.charge(memory=3, tokens=1), group.uncharge(memory=1, tokens=2)],
    "hold": lambda group: [once(group.hold(memory=3)), group["memory"].held],
    "hold with a wrong timeout": lambda group: group.hold(memory=3, timeout=3),
    "attach": lambda group: [again := group.attach(), again.closed, again.close(), again.closed],
    "attach to keep": lambda group: [
        again := group.attach(on_exit="keep"), again["memory"].charge(3), again.close(), group["memory"].usage
    ],
    "attach wrongly": lambda group: group.attach(on_exit="forget"),
    "close": lambda group: [group.close(), group.closed, group.close()],
    "close and charge": lambda group: [group.close(), group["memory"].charge(1)],
    "with": lambda group: [once(group), group.closed],
}  # fmt: skip

ON_A_COUNTER: dict[str, Action] = {
    "group": lambda counter: counter.group,
    "resource": lambda counter: (counter.resource, counter.unit),
    "repr": repr,
    "html": lambda counter: counter._repr_html_(),
    "charge": lambda counter: [counter.charge(3), counter.charge(0), counter.held, counter.usage],
    "charge in turn": lambda counter: [counter.charge(3, wait=True, timeout=1), counter.held],
    "charge too much": lambda counter: [put(counter, limit=4), counter.charge(5)],
    "charge too much in turn": lambda counter: [put(counter, limit=4), counter.charge(5, wait=True, timeout=0)],
    "charge the greatest amount": lambda counter: [counter.charge(fsmount.UNLIMITED), counter.charge(1)],
    "try_charge": lambda counter: [counter.try_charge(3), put(counter, limit=4), counter.try_charge(2)],
    "charge_nofail": lambda counter: [put(counter, limit=4), counter.charge_nofail(4), counter.charge_nofail(1)],
    "charge_nofail of nothing": lambda counter: [
        put(counter, limit=4), counter.charge_nofail(0), counter.charge_nofail(5), counter.charge_nofail(0)
    ],
    "uncharge": lambda counter: [counter.charge(3), counter.uncharge(2), counter.uncharge(0), counter.held],
    "uncharge nothing": lambda counter: counter.uncharge(0),
    "uncharge too much": lambda counter: counter.uncharge(1),
    "hold": lambda counter: [once(counter.hold(3)), counter.held],
    "hold too much": lambda counter: [put(counter, limit=4), once(counter.hold(5))],
    "give": lambda counter: [counter.charge(3), counter.give(2), counter.held, counter.stat()["common"]],
    "give too much": lambda counter: counter.give(1),
    "take": lambda counter: [counter.charge_common(3), counter.take(2), counter.held, counter.stat()["common"]],
    "take too much": lambda counter: counter.take(1),
    "held": lambda counter: counter.held,
    "charge_common": lambda counter: [counter.charge_common(3), counter.uncharge_common(1), counter.usage],
    "charge_common too much": lambda counter: [put(counter, limit=4), counter.charge_common(5)],
    "uncharge_common too much": lambda counter: [counter.charge_common(3), counter.uncharge_common(4)],
    "force_empty": lambda counter: [counter.charge_common(3), counter.force_empty(), counter.usage],
    "values": lambda counter: (counter.usage, counter.limit, counter.soft_limit, counter.max_usage, counter.failcnt),
    "margins": lambda counter: [
        counter.charge(3), put(counter, soft_limit=1), counter.margin, counter.soft_limit_excess
    ],
    "limit": lambda counter: [put(counter, limit=3), counter.limit, counter.events()],
    "limit below the usage": lambda counter: [counter.charge(3), put(counter, limit=2)],
    "limit of all": lambda counter: [put(counter, limit=fsmount.UNLIMITED), counter.limit],
    "soft_limit": lambda counter: [counter.charge(3), put(counter, soft_limit=2), counter.soft_limit],
    "stat": lambda counter: [*counter.stat()],
    "events": lambda counter: counter.events(),
    "holders": lambda counter: [counter.charge(3), [(line.pid, line.held) for line in counter.holders()]],
    "group as holder": lambda counter: [counter.charge_common(3), [line for line in counter.holders() if not line.pid]],
    "snapshot": lambda counter: [
        counter.group.mkdir("below"), [(row.name, row.usage, row.limit) for row in counter.snapshot()]
    ],
    "why": refusal,
    "why after a refusal": lambda counter: [put(counter, limit=4), counter.try_charge(5), refusal(counter)],
    "why without any": lambda counter: counter.why(0),
    "probe": lambda counter: [counter.probe(3), put(counter, limit=2), counter.probe(3)],
    "reset_max_usage": lambda counter: [
        counter.charge(3), counter.uncharge(3), counter.reset_max_usage(), counter.max_usage
    ],
    "reset_failcnt": lambda counter: [counter.reset_failcnt(), counter.failcnt],
}  # fmt: skip


def calling(name: str, amount: object) -> Action:
    return lambda counter: getattr(counter, name)(amount)


def setting(name: str, amount: object) -> Action:
    return lambda counter: setattr(counter, name, amount)


WITH_WRONG_AMOUNTS: dict[str, Action] = {
    **{
        f"{name} of {amount!r}": calling(name, amount)
        for name in ("charge", "try_charge", "charge_nofail", "uncharge", "give", "take", "hold", "probe",
                     "charge_common", "uncharge_common")
        for amount in (-1, 2**63, True, 1.0, "1", None)
    },
    **{
        f"{name} = {amount!r}": setting(name, amount)
        for name in ("limit", "soft_limit")
        for amount in (-1, 2**63, True, 1.0, "1", None)
    },
}  # fmt: skip


# A state is a function that makes a group, below `parent`, and returns an object for it.


def unattached(parent: fsmount.Group) -> fsmount.Group:
    return parent.mkdir("child")


def attached_group(parent: fsmount.Group) -> fsmount.Group:
    return parent.mkdir("child").attach()


def kept(parent: fsmount.Group) -> fsmount.Group:
    return parent.mkdir("child").attach(on_exit="keep")


def listed(parent: fsmount.Group) -> fsmount.Group:
    parent.mkdir("child")
    return parent.children()[-1]


def found_from_below(parent: fsmount.Group) -> fsmount.Group:
    found = parent.mkdir("child").mkdir("child").parent
    assert found is not None
    return found


def closed(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("child").attach()
    group["memory"].charge(3)
    group.close()
    return group


def removed(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("child")
    group["memory"].charge(3)
    group["memory"].uncharge(3)
    group.close()
    parent.rmdir("child")
    return group


def removed_unused(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("child")
    parent.rmdir("child")
    return group


def replaced(parent: fsmount.Group) -> fsmount.Group:
    group = removed_unused(parent)
    parent.mkdir("child")["memory"].charge_common(7)
    return group


def renamed(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("old")
    parent.rename("old", "child")
    return group


def renamed_and_replaced(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("old")
    parent.rename("old", "child")
    parent.mkdir("old")["memory"].charge_common(7)
    return group


def renamed_above(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("old").mkdir("child")
    parent.rename("old", "child")
    return group


def renamed_while_attached(parent: fsmount.Group) -> fsmount.Group:
    group = parent.mkdir("old").attach()
    group["memory"].charge(3)
    parent.rename("old", "child")
    group["memory"].uncharge(3)
    return group


#: The actions that depend on the way to the group; scripts/soak takes all of them in each state.
ON_THE_WAY = {
    "path", "name", "parent", "exists", "repr", "equality", "children", "child", "mkdir", "rename", "charge", "attach",
    "close and charge", "counter: charge", "counter: values", "counter: limit", "counter: force_empty", "counter: give",
}  # fmt: skip
IN_ALL_ACTIONS = (unattached, attached_group, closed, removed, renamed_and_replaced)
ON_THE_WAY_ONLY = (
    kept, listed, found_from_below, removed_unused, replaced, renamed, renamed_above, renamed_while_attached
)  # fmt: skip


@pytest.mark.parametrize("state", IN_ALL_ACTIONS + ON_THE_WAY_ONLY)
def test_any_method_answers_alike_in_any_state(both: Both, state: State, soak: bool) -> None:
    actions = {**ON_A_GROUP, **{f"counter: {what}": on_memory(action) for what, action in ON_A_COUNTER.items()}}
    if state in ON_THE_WAY_ONLY and not soak:
        actions = {what: actions[what] for what in ON_THE_WAY}
    assert differences(both, state, actions) == {}


@pytest.mark.parametrize("state", [unattached, removed])
def test_a_wrong_amount_is_refused_alike(both: Both, state: State) -> None:
    assert differences(both, state, {what: on_memory(action) for what, action in WITH_WRONG_AMOUNTS.items()}) == {}


def differences(both: Both, state: State, actions: dict[str, Action]) -> dict[str, tuple[object, ...]]:
    """The outcomes of the actions that differ between the transports."""
    found = {what: tuple(in_a_state(parent, state, action) for parent in both) for what, action in actions.items()}
    return {what: outcomes for what, outcomes in found.items() if outcomes[0] != outcomes[1]}


def on_memory(action: Action) -> Action:
    return lambda group: action(group["memory"])


def in_a_state(parent: fsmount.Group, state: State, action: Action) -> object:
    """The outcome of an action in a state.  Afterwards everything that either has made is removed."""
    group = state(parent)
    try:
        return outcome(action, group)
    finally:
        group.close()
        remove_children(parent)


def remove_children(group: fsmount.Group) -> None:
    for child in group.children():
        remove_children(child)
        for resource in child:
            child[resource].force_empty()
        group.rmdir(child.name)
