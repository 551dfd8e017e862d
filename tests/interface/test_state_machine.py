"""The same calls through both transports, on two groups of one mount: equal results, errors and values.

Hypothesis chooses the calls.  Each works on objects that earlier calls have returned: groups that were made, found,
renamed, moved with a group above, removed, attached or closed.  After each call the values of all groups are compared.

In the region all attachments of a process to a group hold their charges together; through files each holds its own.
So the machine charges a group through one object at a time.  In the region attach() and also a refused charge make the
process a holder; through files only a charge does.  So the machine charges 0 first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import fsmount
from tests.interface.conftest import TRANSPORTS
from tests.interface.outcomes import Action, outcome
from tests.mounts import GroupFiles

#: The values of a counter that stock does not change.
EXACT = (
    "name", "usage", "usage_local", "common", "limit", "soft_limit", "hierarchical_limit", "margin",
    "hierarchical_margin", "soft_limit_excess", "failcnt",
)  # fmt: skip

PICK = st.integers(0, 1000)
RESOURCE = st.sampled_from(["memory", "tokens"])
AMOUNT = st.integers(0, 12) | st.sampled_from([-1, 4096, 1 << 40, 1 << 63])
LIMIT = st.integers(0, 20) | st.just(fsmount.UNLIMITED)
NAME = st.sampled_from(["a", "b", "c", "a", "b", "c", "", "a/b", "..", "memory.stat", "x" * 256])


class Side:
    """One of the two groups, and the objects that calls through its transport have returned."""

    def __init__(self, path: str, transport: fsmount.Transport) -> None:
        self.path = path
        self.groups = [fsmount.attach(path, transport=transport)]
        self.groups[0].charge(memory=0)
        self.holds: list[AbstractContextManager[None]] = []

    def text(self, result: object) -> str:
        """The text of a result, without the path of the group and the name of its directory.

        A removed group has no path: the last known one depends on the earlier calls of each transport.
        """
        if isinstance(result, tuple) and result[0] is fsmount.GroupRemoved:
            return "removed"
        if isinstance(result, str) and result.endswith(": removed>"):
            return "removed"
        return repr(result).replace(self.path, "").replace(os.path.basename(self.path), "")


class BothTransports(RuleBasedStateMachine):
    """Subclasses name the group in which the two groups are made."""

    group: GroupFiles

    def __init__(self) -> None:
        super().__init__()
        self.sides = []
        for transport in TRANSPORTS:
            made = self.group.mkdir(f"through-{transport}")
            self.sides.append(Side(str(made.path), transport))
        #: For each group, by its object in the region, the place of the object that charges it.
        self.charging = {self.sides[0].groups[0]: 0}

    def teardown(self) -> None:
        for side in self.sides:
            for group in reversed(side.groups):
                group.close()
        for made in self.group.children():
            made.remove()

    # ---- the same call on both sides

    def call(self, action: Callable[[Side], object]) -> list[Any]:
        """The results of a call on both sides, which must be equal."""
        results: list[Any] = []

        def act(side: Side) -> object:
            results.append(action(side))
            return results[-1]

        memory, files = (side.text(outcome(act, side)) for side in self.sides)
        assert memory == files
        self.compare()
        return results

    def on_group(self, pick: int, action: Action) -> list[Any]:
        return self.call(lambda side: action(side.groups[pick % len(side.groups)]))

    def on_counter(self, pick: int, resource: str, action: Action) -> None:
        self.on_group(pick, lambda group: action(group[resource]))

    def on_charging(self, pick: int, action: Action) -> None:
        """The call on an object that may charge its group, once it is a holder."""
        place = self.charging_place(pick)
        self.on_group(place, lambda group: group.charge(memory=0))
        self.on_group(place, action)

    def charging_place(self, pick: int) -> int:
        places = list(self.charging.values())
        return places[pick % len(places)]

    def keep(self, results: list[fsmount.Group]) -> None:
        """Keeps the objects that a call has returned, for later calls."""
        if results:
            for side, group in zip(self.sides, results, strict=True):
                side.groups.append(group)

    def compare(self) -> None:
        for resource in ("memory", "tokens"):
            memory, files = (self.values(side, resource) for side in self.sides)
            assert memory == files

    def values(self, side: Side, resource: str) -> list[tuple[object, ...]]:
        """The exact values of all groups below, with the place of the group above."""
        rows = side.groups[0][resource].snapshot()
        places = {row.id: place for place, row in enumerate(rows)}
        return [
            (places.get(row.parent), *(getattr(row, key) for key in EXACT if place or key != "name"))
            for place, row in enumerate(rows)
        ]

    # ---- groups

    @initialize(limit=st.integers(5, 20))
    def make_two_groups(self, limit: int) -> None:
        self.mkdir(0, "a")
        self.mkdir(1, "b")
        self.limit(1, "memory", limit)

    @rule(pick=PICK, name=NAME)
    def mkdir(self, pick: int, name: str) -> None:
        made = self.on_group(pick, lambda group: group.mkdir(name))
        if made:
            self.charging[made[0]] = len(self.sides[0].groups)
        self.keep(made)

    @rule(pick=PICK, name=NAME)
    def rmdir(self, pick: int, name: str) -> None:
        self.on_group(pick, lambda group: group.rmdir(name))

    @rule(pick=PICK, old=NAME, new=NAME)
    def rename(self, pick: int, old: str, new: str) -> None:
        self.on_group(pick, lambda group: group.rename(old, new))

    @rule(pick=PICK, name=NAME)
    def child(self, pick: int, name: str) -> None:
        self.keep(self.on_group(pick, lambda group: group.child(name)))

    @rule(pick=PICK, which=PICK)
    def children(self, pick: int, which: int) -> None:
        found = self.on_group(pick, lambda group: group.children())
        if found and found[0]:
            self.keep([children[which % len(children)] for children in found])

    @precondition(lambda self: len(self.sides[0].groups) > 1)
    @rule(pick=PICK)
    def parent(self, pick: int) -> None:
        place = 1 + pick % (len(self.sides[0].groups) - 1)
        if self.sides[0].groups[place] != self.sides[0].groups[0]:  # both sides share its parent
            self.keep(self.on_group(place, lambda group: group.parent))

    @rule(pick=PICK)
    def look(self, pick: int) -> None:
        self.on_group(pick, repr)
        self.on_group(pick, lambda group: (group.exists, group.closed, group.path))
        self.on_group(pick, lambda group: group.name if group.path else "")

    @rule(pick=PICK, other=PICK)
    def equality(self, pick: int, other: int) -> None:
        def equal(side: Side) -> bool:
            one, two = (side.groups[place % len(side.groups)] for place in (pick, other))
            assert (one == two) <= (hash(one) == hash(two))
            return one == two

        self.call(equal)

    # ---- attachments

    @rule(pick=PICK)
    def close(self, pick: int) -> None:
        place = pick % len(self.sides[0].groups)
        if place:
            self.on_group(place, lambda group: group.close())

    @rule(pick=PICK, on_exit=st.sampled_from(["release", "keep"]))
    def attach(self, pick: int, on_exit: Literal["release", "keep"]) -> None:
        group = self.sides[0].groups[pick % len(self.sides[0].groups)]
        if self.sides[0].groups[self.charging.get(group, 0)].closed:
            attached = self.on_group(pick, lambda group: group.attach(on_exit=on_exit))
            if attached:
                self.charging[attached[0]] = len(self.sides[0].groups)
            self.keep(attached)
            for new in attached:
                new.charge(memory=0)

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def charge(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].charge(amount))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def charge_in_turn(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].charge(amount, wait=True, timeout=0))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def try_charge(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].try_charge(amount))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def charge_nofail(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].charge_nofail(amount))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def uncharge(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].uncharge(amount))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def give(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].give(amount))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def take(self, pick: int, resource: str, amount: int) -> None:
        self.on_charging(pick, lambda group: group[resource].take(amount))

    @rule(pick=PICK, memory=AMOUNT, tokens=AMOUNT)
    def charge_several(self, pick: int, memory: int, tokens: int) -> None:
        self.on_charging(pick, lambda group: group.charge(memory=memory, tokens=tokens))

    @rule(pick=PICK, memory=AMOUNT, tokens=AMOUNT)
    def uncharge_several(self, pick: int, memory: int, tokens: int) -> None:
        self.on_charging(pick, lambda group: group.uncharge(memory=memory, tokens=tokens))

    @rule(pick=PICK)
    def held(self, pick: int) -> None:
        self.on_charging(pick, lambda group: (group["memory"].held, group["tokens"].held))

    @rule(pick=PICK, memory=AMOUNT, tokens=AMOUNT)
    def enter_a_hold(self, pick: int, memory: int, tokens: int) -> None:
        place = self.charging_place(pick)

        def enter(side: Side) -> bool:
            side.groups[place].charge(memory=0)
            hold = side.groups[place].hold(memory=memory, tokens=tokens)
            hold.__enter__()
            side.holds.append(hold)
            return True

        self.call(enter)

    @precondition(lambda self: self.sides[0].holds)
    @rule()
    def leave_a_hold(self) -> None:
        self.call(lambda side: side.holds.pop().__exit__(None, None, None))

    # ---- the counters

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def charge_the_group(self, pick: int, resource: str, amount: int) -> None:
        self.on_counter(pick, resource, lambda counter: counter.charge_common(amount))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def uncharge_the_group(self, pick: int, resource: str, amount: int) -> None:
        self.on_counter(pick, resource, lambda counter: counter.uncharge_common(amount))

    @rule(pick=PICK, resource=RESOURCE)
    def force_empty(self, pick: int, resource: str) -> None:
        self.on_counter(pick, resource, lambda counter: counter.force_empty())

    @rule(pick=PICK, resource=RESOURCE, limit=LIMIT)
    def limit(self, pick: int, resource: str, limit: int) -> None:
        self.on_counter(pick, resource, lambda counter: setattr(counter, "limit", limit))

    @rule(pick=PICK, resource=RESOURCE, limit=LIMIT)
    def soft_limit(self, pick: int, resource: str, limit: int) -> None:
        self.on_counter(pick, resource, lambda counter: setattr(counter, "soft_limit", limit))

    @rule(pick=PICK, resource=RESOURCE)
    def reset(self, pick: int, resource: str) -> None:
        self.on_counter(pick, resource, lambda counter: (counter.reset_failcnt(), counter.reset_max_usage()))

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNT)
    def probe(self, pick: int, resource: str, amount: int) -> None:
        self.on_counter(pick, resource, lambda counter: counter.probe(amount)._replace(group=""))

    @rule(pick=PICK, resource=RESOURCE)
    def read(self, pick: int, resource: str) -> None:
        self.on_counter(
            pick,
            resource,
            lambda counter: (
                counter.usage,
                counter.limit,
                counter.soft_limit,
                counter.failcnt,
                counter.margin,
                counter.soft_limit_excess,
                counter.events(),
                [(line.pid, line.held) for line in counter.holders() if line.held],
                repr(counter),
            ),
        )


@pytest.fixture
def machine(group: GroupFiles) -> type[BothTransports]:
    return type("Machine", (BothTransports,), {"group": group})


def run(machine: type[BothTransports], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_calls_have_the_same_results(machine: type[BothTransports]) -> None:
    run(machine, 40, 50)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_random_calls_have_the_same_results(machine: type[BothTransports]) -> None:
    run(machine, 300, 100)
