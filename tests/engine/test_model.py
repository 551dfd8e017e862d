"""The counters against a simple model: a dict of integers for each group, and no stock.

Hypothesis chooses the operations. Each result of the engine, a number or an error with its details, must equal that of
the model. The comparison is an inequality only where stock makes a difference by design: reserved, and max_usage within
its error_bound. With a batch of 0 it is always an equality.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from fsmount import LimitExceeded, NotHeld, Tree
from fsmount.engine import KEEP, PROCESS, UNLIMITED, Charger, EngineError, change, process_start_time
from fsmount.errors import GroupRemoved
from fsmount.protocol.listings import CounterSnapshot
from fsmount.protocol.thresholds import Mark
from fsmount.shm import Group

SOAK = os.environ.get("FSMOUNT_SOAK", "0") not in ("", "0")

RESOURCES = ("memory", "tokens")
MAX_GROUPS = 12
OWN_HOLDERS = 3  # made here in the region, in addition to those that Tree makes for attachments

# ---- the model --------------------------------------------------------------------------------------


@dataclass
class ModelWatch:
    id: int
    mark: Mark
    above: bool = False
    crossings: int = 0

    def is_above(self, usage: int, limit: int) -> bool:
        amount, whole = self.mark.amount * (limit if self.mark.percent else 1), 100 if self.mark.percent else 1
        return usage * whole >= amount if self.mark.below else usage * whole > amount


@dataclass
class ModelCounter:
    limit: int = UNLIMITED
    soft_limit: int = UNLIMITED
    failcnt: int = 0
    common: int = 0
    held: dict[str, int] = field(default_factory=dict)  # by the name of the holder
    peak: int = 0
    low: int = 0
    above_soft_limit: bool = False
    # events here and in removed groups below
    refusals: int = 0
    soft_crossings: int = 0
    crossings: int = 0
    watches: list[ModelWatch] = field(default_factory=list)

    def refuse(self) -> None:
        self.failcnt += 1
        self.refusals += 1

    def look(self, usage: int) -> None:
        if (usage > self.soft_limit) != self.above_soft_limit:
            self.above_soft_limit = not self.above_soft_limit
            self.soft_crossings += 1
        for watch in self.watches:
            if watch.is_above(usage, self.limit) != watch.above:
                watch.above = not watch.above
                watch.crossings += watch.above != watch.mark.below
                self.crossings += watch.above != watch.mark.below


class ModelGroup:
    def __init__(self, name: str, parent: ModelGroup | None) -> None:
        self.name = name
        self.parent = parent
        self.children: list[ModelGroup] = []
        self.counters = {resource: ModelCounter() for resource in RESOURCES}

    def __repr__(self) -> str:
        return self.path

    @property
    def path(self) -> str:
        return "/" if self.parent is None else f"{self.parent.path.rstrip('/')}/{self.name}"

    def upward(self) -> Iterator[ModelGroup]:
        group: ModelGroup | None = self
        while group is not None:
            yield group
            group = group.parent

    def local_usage(self, resource: str) -> int:
        counter = self.counters[resource]
        return counter.common + sum(counter.held.values())

    def usage(self, resource: str) -> int:
        return self.local_usage(resource) + sum(child.usage(resource) for child in self.children)

    def refuser(self, resource: str, amount: int) -> ModelGroup | None:
        """The first group on the way up whose limit refuses a charge."""
        for group in self.upward():
            if amount > 0 and group.usage(resource) + amount > group.counters[resource].limit:
                return group
        return None

    def margin(self, resource: str) -> int:
        return max(0, self.counters[resource].limit - self.usage(resource))

    def hierarchical_margin(self, resource: str) -> int:
        return min(group.margin(resource) for group in self.upward())

    def changed(self, resource: str) -> None:
        """Notes peaks, lows and crossings."""
        for group in self.upward():
            counter, usage = group.counters[resource], group.usage(resource)
            counter.peak = max(counter.peak, usage)
            counter.low = min(counter.low, usage)
            counter.look(usage)

    def events(self, resource: str) -> dict[str, int]:
        counter = self.counters[resource]
        events = {"limit": counter.refusals, "soft_limit": counter.soft_crossings, "threshold": counter.crossings}
        for child in self.children:
            events = {key: events[key] + count for key, count in child.events(resource).items()}
        return events


class Seat:
    """A holder in a group, with its two chargers there."""

    def __init__(self, group: ModelGroup, holder: str, chargers: dict[str, Charger], attached: Group | None) -> None:
        self.group = group
        self.holder = holder
        self.chargers = chargers
        self.attached = attached

    def __repr__(self) -> str:
        return f"<{self.holder} in {self.group}>"


# ---- the operations ------------------------------------------------------------------------------------

PICK = st.integers(0, 1000)
GOOD_NAMES = st.sampled_from(["a", "b", "c", "dd", "é", "with space", "x" * 255])
BAD_NAMES = st.sampled_from(
    ["", ".", "..", "a/b", "line\nfeed", "nul\0", "memory.limit_in_bytes", "tokens.usage", ".fsmount"]
)
RESOURCE = st.sampled_from(RESOURCES)

#: An amount, a distance from the largest that fits, or a part of what is there.
AMOUNTS: st.SearchStrategy[Callable[[int], int]] = st.one_of(
    st.integers(0, 300).map(lambda n: lambda _there: n),
    st.integers(0, 1 << 20).map(lambda n: lambda _there: n),
    st.integers(0, UNLIMITED).map(lambda n: lambda _there: n),
    st.sampled_from([UNLIMITED, UNLIMITED - 1, 1 << 62, (1 << 62) + 1, 1 << 60]).map(lambda n: lambda _there: n),
    st.integers(-2, 2).map(lambda n: lambda there: there + n),
    st.integers(2, 9).map(lambda n: lambda there: there // n),
)

#: An amount, with the flags for below and for a percentage of the limit.
MARKS = st.tuples(AMOUNTS, st.booleans(), st.booleans())


def clamp(amount: int) -> int:
    return min(max(amount, 0), UNLIMITED)


class Counters(RuleBasedStateMachine):
    """With the automatic batch."""

    batch: int | str = "auto"

    @initialize(eager=st.booleans())
    def make(self, eager: bool) -> None:
        self.tree = Tree.create(
            None, ["memory", "tokens:count"], batch=self.batch, groups=MAX_GROUPS + 1, holders=8, cells=256
        )
        #: A read brings max_usage up to date. So half of the runs read after each step, and half seldom.
        self.eager = eager
        self.root = ModelGroup("", None)
        self.real: dict[ModelGroup, Group] = {self.root: self.tree.root}
        self.removed: list[Group] = []
        self.seats: list[Seat] = []
        self.holders: dict[str, int] = {}
        self.keeps: dict[str, bool] = {"attached": False, "attached keeping": True}

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.compare()
            self.end_all()
            self.tree.close()

    # ---- choosing

    def groups(self) -> list[ModelGroup]:
        return list(self.real)

    def group_at(self, pick: int) -> ModelGroup:
        return self.groups()[pick % len(self.real)]

    def seat_at(self, pick: int) -> Seat:
        return self.seats[pick % len(self.seats)]

    def taken(self, parent: ModelGroup, name: str) -> ModelGroup | None:
        return next((child for child in parent.children if child.name == name), None)

    # ---- groups

    @rule(pick=PICK, name=GOOD_NAMES)
    def mkdir(self, pick: int, name: str) -> None:
        parent = self.group_at(pick)
        if self.taken(parent, name):
            with pytest.raises(FileExistsError):
                self.real[parent].mkdir(name)
        elif len(self.real) > MAX_GROUPS:
            with pytest.raises(OSError) as caught:
                self.real[parent].mkdir(name)
            assert caught.value.errno == errno.ENOSPC
        else:
            made = ModelGroup(name, parent)
            self.real[made] = self.real[parent].mkdir(name)
            parent.children.append(made)
            self.after()

    @rule(pick=PICK, name=BAD_NAMES)
    def mkdir_with_a_bad_name(self, pick: int, name: str) -> None:
        parent = self.group_at(pick)
        with pytest.raises(OSError) as caught:
            self.real[parent].mkdir(name)
        assert caught.value.errno == (errno.EEXIST if "." in name.strip(".") or name == ".fsmount" else errno.EINVAL)
        with pytest.raises(OSError) as caught:
            self.real[parent].mkdir("x" * 256)
        assert caught.value.errno == errno.ENAMETOOLONG

    @rule(pick=PICK)
    def rmdir(self, pick: int) -> None:
        group = self.group_at(pick)
        real = self.real[group]
        busy = (
            group is self.root
            or group.children
            or any(group.usage(resource) for resource in RESOURCES)
            or any(seat.group is group for seat in self.seats)
        )
        if busy:
            with pytest.raises(OSError) as caught:
                real.remove()
            assert caught.value.errno == errno.EBUSY
        else:
            assert group.parent is not None
            self.real[group.parent].rmdir(group.name)
            group.parent.children.remove(group)
            for resource, counter in group.counters.items():
                above = group.parent.counters[resource]
                above.refusals += counter.refusals
                above.soft_crossings += counter.soft_crossings
                above.crossings += counter.crossings
            del self.real[group]
            self.removed.append(real)
        self.after()

    @rule(pick=PICK, name=GOOD_NAMES)
    def rename(self, pick: int, name: str) -> None:
        group = self.group_at(pick)
        if group.parent is None:
            return
        other = self.taken(group.parent, name)
        if other and other is not group:
            with pytest.raises(FileExistsError):
                self.real[group.parent].rename(group.name, name)
        else:
            self.real[group.parent].rename(group.name, name)
            group.name = name
        self.after()

    @rule(pick=PICK)
    @precondition(lambda self: self.removed)
    def use_what_was_removed(self, pick: int) -> None:
        real = self.removed[pick % len(self.removed)]
        assert not real.exists
        counter = real["memory"]
        attempts: list[Callable[[], object]] = [
            lambda: counter.usage,
            lambda: setattr(counter, "limit", 5),
            lambda: counter.charge_common(1),
            lambda: counter.charge(1),
            lambda: real.mkdir("below"),
            lambda: real.attach(),
            real.children,
        ]
        for attempt in attempts:
            with pytest.raises(GroupRemoved):
                attempt()

    # ---- holders

    @rule(pick=PICK, keep=st.booleans())
    def attach(self, pick: int, keep: bool) -> None:
        group = self.group_at(pick)
        holder = "attached keeping" if keep else "attached"
        if any(seat.group is group and seat.holder == holder for seat in self.seats):
            return
        attached = self.real[group].attach(on_exit="keep" if keep else "release")
        self.sit(group, holder, {resource: attached[resource] for resource in RESOURCES}, attached)

    @rule(pick=PICK, number=st.integers(0, OWN_HOLDERS - 1), one_by_one=st.booleans())
    def join(self, pick: int, number: int, one_by_one: bool) -> None:
        group = self.group_at(pick)
        holder = f"holder {number}"
        region = self.tree.region
        if holder not in self.holders:
            self.holders[holder] = region.holder_create(os.getpid(), process_start_time(os.getpid()), PROCESS, 0)
            self.keeps[holder] = False
        if any(seat.group is group and seat.holder == holder for seat in self.seats):
            region.holder_join(self.holders[holder], self.real[group].id)  # no error, no change
            return
        id = self.real[group].id
        if one_by_one:
            for index in reversed(range(len(RESOURCES))):
                region.holder_join_one(self.holders[holder], id, index)
        else:
            region.holder_join(self.holders[holder], id)
        chargers = {}
        for index, resource in enumerate(RESOURCES):
            chargers[resource] = Charger()
            chargers[resource].bind(region, self.holders[holder], id, index)
        self.sit(group, holder, chargers, None)

    def sit(self, group: ModelGroup, holder: str, chargers: dict[str, Charger], attached: Group | None) -> None:
        self.seats.append(Seat(group, holder, chargers, attached))
        for resource in RESOURCES:
            group.counters[resource].held[holder] = 0
        self.after()

    def stand_up(self, seat: Seat, keep: bool) -> None:
        self.seats.remove(seat)
        for resource in RESOURCES:
            counter = seat.group.counters[resource]
            held = counter.held.pop(seat.holder)
            if keep:
                counter.common += held
            seat.group.changed(resource)

    @rule(pick=PICK, keep=st.booleans())
    @precondition(lambda self: self.seats)
    def leave(self, pick: int, keep: bool) -> None:
        seat = self.seat_at(pick)
        if seat.attached is not None:
            seat.attached.close()
            self.stand_up(seat, self.keeps[seat.holder])
            with pytest.raises(ValueError):
                seat.chargers["memory"].charge(1)
        else:
            for charger in seat.chargers.values():
                charger.unbind()
            region = self.tree.region
            region.holder_leave(self.holders[seat.holder], self.real[seat.group].id, KEEP if keep else 0)
            self.stand_up(seat, keep)
            with pytest.raises(EngineError) as caught:
                seat.chargers["memory"].charge(1)
            assert caught.value.errno == errno.ENOTCONN
        self.after()

    @rule(pick=PICK, keep=st.booleans())
    @precondition(lambda self: self.holders)
    def change_what_the_end_does(self, pick: int, keep: bool) -> None:
        holder = list(self.holders)[pick % len(self.holders)]
        self.tree.region.holder_set_flags(self.holders[holder], KEEP if keep else 0)
        self.keeps[holder] = keep

    @rule(pick=PICK)
    @precondition(lambda self: self.holders)
    def end(self, pick: int) -> None:
        holder = list(self.holders)[pick % len(self.holders)]
        self.end_holder(holder)
        self.after()

    def end_holder(self, holder: str) -> None:
        id = self.holders.pop(holder)
        for seat in [seat for seat in self.seats if seat.holder == holder]:
            for charger in seat.chargers.values():
                charger.unbind()
            self.stand_up(seat, self.keeps[holder])
        self.tree.region.holder_end(id)
        with pytest.raises(EngineError) as caught:
            self.tree.region.holder_end(id)
        assert caught.value.errno == errno.ENODEV

    # ---- charging

    def refused(self, error: OSError, group: ModelGroup, resource: str, amount: int) -> None:
        """The error names the first group that refuses, with true values. The refusal counts only there."""
        refuser = group.refuser(resource, amount)
        assert refuser is not None, f"{amount} was refused, it fits: {error}"
        assert error.errno == errno.ENOMEM
        counter = refuser.counters[resource]
        counter.refuse()
        assert isinstance(error, LimitExceeded | EngineError)
        assert (error.usage, error.limit) == (refuser.usage(resource), counter.limit)
        if isinstance(error, LimitExceeded):
            assert (error.group, error.resource, error.requested) == (refuser.path, resource, amount)
        else:
            assert error.group == self.real[refuser].id

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS, asking=st.booleans())
    @precondition(lambda self: self.seats)
    def charge(self, pick: int, resource: str, amount: Callable[[int], int], asking: bool) -> None:
        seat = self.seat_at(pick)
        n = clamp(amount(seat.group.hierarchical_margin(resource)))
        fits = seat.group.refuser(resource, n) is None
        charger = seat.chargers[resource]
        if asking:
            assert charger.try_charge(n) is fits
            if not fits:
                refuser = seat.group.refuser(resource, n)
                assert refuser is not None
                refuser.counters[resource].refuse()
        else:
            try:
                charger.charge(n)
            except OSError as error:
                self.refused(error, seat.group, resource, n)
            else:
                assert fits, f"{n} was charged to {seat}, {seat.group.refuser(resource, n)} ought to refuse"
        if fits:
            seat.group.counters[resource].held[seat.holder] += n
            seat.group.changed(resource)
        self.after()

    @rule(pick=PICK, amounts=st.tuples(AMOUNTS, AMOUNTS))
    @precondition(lambda self: self.seats)
    def charge_as_a_whole(self, pick: int, amounts: tuple[Callable[[int], int], Callable[[int], int]]) -> None:
        seat = self.seat_at(pick)
        wanted = {
            resource: clamp(amount(seat.group.hierarchical_margin(resource)))
            for resource, amount in zip(RESOURCES, amounts, strict=True)
        }
        unfit = [resource for resource, n in wanted.items() if seat.group.refuser(resource, n)]
        try:
            change({seat.chargers[resource]: n for resource, n in wanted.items()})
        except OSError as error:
            self.refused(error, seat.group, unfit[0], wanted[unfit[0]])
        else:
            assert not unfit, f"{wanted} were charged to {seat}, {unfit} ought to be refused"
            for resource, n in wanted.items():
                seat.group.counters[resource].held[seat.holder] += n
                seat.group.changed(resource)
        self.after()

    @rule(pick=PICK, amounts=st.tuples(AMOUNTS, AMOUNTS))
    @precondition(lambda self: self.seats)
    def uncharge_as_a_whole(self, pick: int, amounts: tuple[Callable[[int], int], Callable[[int], int]]) -> None:
        seat = self.seat_at(pick)
        held = {resource: seat.group.counters[resource].held[seat.holder] for resource in RESOURCES}
        wanted = {resource: clamp(amount(held[resource])) for resource, amount in zip(RESOURCES, amounts, strict=True)}
        short = [resource for resource in RESOURCES if wanted[resource] > held[resource]]
        operation = partial(change, {seat.chargers[resource]: -n for resource, n in wanted.items()})
        if short:
            self.not_held(lambda _: operation(), short[0], wanted[short[0]], held[short[0]])
        else:
            operation()
            for resource, n in wanted.items():
                seat.group.counters[resource].held[seat.holder] -= n
                seat.group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=st.integers(1, 400), times=st.integers(1, 40))
    @precondition(lambda self: self.seats)
    def charge_and_uncharge_again_and_again(self, pick: int, resource: str, amount: int, times: int) -> None:
        seat = self.seat_at(pick)
        counter = seat.group.counters[resource]
        for _ in range(times):
            if seat.chargers[resource].try_charge(amount):
                assert seat.group.refuser(resource, amount) is None
                counter.held[seat.holder] += amount
                seat.group.changed(resource)
                seat.chargers[resource].uncharge(amount)
                counter.held[seat.holder] -= amount
                seat.group.changed(resource)
            else:
                refuser = seat.group.refuser(resource, amount)
                assert refuser is not None
                refuser.counters[resource].refuse()
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    @precondition(lambda self: self.seats)
    def charge_nofail(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        seat = self.seat_at(pick)
        n = max(1, clamp(amount(seat.group.hierarchical_margin(resource))))
        if self.root.usage(resource) + n > UNLIMITED:
            with pytest.raises(OSError) as caught:
                seat.chargers[resource].charge_nofail(n)
            assert caught.value.errno == errno.EOVERFLOW
        else:
            within = seat.chargers[resource].charge_nofail(n)
            seat.group.counters[resource].held[seat.holder] += n
            seat.group.changed(resource)
            over = [group for group in seat.group.upward() if group.usage(resource) > group.counters[resource].limit]
            for group in over:
                group.counters[resource].refuse()
            assert within is (not over)
        self.after()

    def not_held(self, operation: Callable[[int], object], resource: str, amount: int, held: int) -> None:
        with pytest.raises(OSError) as caught:
            operation(amount)
        error = caught.value
        assert error.errno == errno.ERANGE
        assert isinstance(error, NotHeld | EngineError)
        assert error.held == held
        if isinstance(error, NotHeld):
            assert (error.resource, error.requested) == (resource, amount)

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    @precondition(lambda self: self.seats)
    def uncharge(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        seat = self.seat_at(pick)
        counter = seat.group.counters[resource]
        n = clamp(amount(counter.held[seat.holder]))
        if n > counter.held[seat.holder]:
            self.not_held(seat.chargers[resource].uncharge, resource, n, counter.held[seat.holder])
        else:
            seat.chargers[resource].uncharge(n)
            counter.held[seat.holder] -= n
            seat.group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    @precondition(lambda self: self.seats)
    def give(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        seat = self.seat_at(pick)
        counter = seat.group.counters[resource]
        n = clamp(amount(counter.held[seat.holder]))
        if n > counter.held[seat.holder]:
            self.not_held(seat.chargers[resource].give, resource, n, counter.held[seat.holder])
        else:
            seat.chargers[resource].give(n)
            counter.held[seat.holder] -= n
            counter.common += n
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    @precondition(lambda self: self.seats)
    def take(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        seat = self.seat_at(pick)
        counter = seat.group.counters[resource]
        n = clamp(amount(counter.common))
        if n > counter.common:
            self.not_held(seat.chargers[resource].take, resource, n, counter.common)
        else:
            seat.chargers[resource].take(n)
            counter.held[seat.holder] += n
            counter.common -= n
        self.after()

    # ---- counters

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    def charge_common(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        group = self.group_at(pick)
        n = clamp(amount(group.hierarchical_margin(resource)))
        try:
            self.real[group][resource].charge_common(n)
        except OSError as error:
            self.refused(error, group, resource, n)
        else:
            assert group.refuser(resource, n) is None
            group.counters[resource].common += n
            group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    def uncharge_common(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        group = self.group_at(pick)
        counter = group.counters[resource]
        n = clamp(amount(counter.common))
        if n > counter.common:
            self.not_held(self.real[group][resource].uncharge_common, resource, n, counter.common)
        else:
            self.real[group][resource].uncharge_common(n)
            counter.common -= n
            group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE)
    def force_empty(self, pick: int, resource: str) -> None:
        group = self.group_at(pick)
        self.real[group][resource].force_empty()
        group.counters[resource].common = 0
        group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    def set_limit(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        group = self.group_at(pick)
        usage = group.usage(resource)
        limit = clamp(amount(usage))
        if limit < usage:
            with pytest.raises(OSError) as caught:
                self.real[group][resource].limit = limit
            assert caught.value.errno == errno.EBUSY
        else:
            self.real[group][resource].limit = limit
            group.counters[resource].limit = limit
            group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, room=st.integers(0, 2000))
    def set_limit_just_above_the_usage(self, pick: int, resource: str, room: int) -> None:
        group = self.group_at(pick)
        limit = clamp(group.usage(resource) + room)
        self.real[group][resource].limit = limit
        group.counters[resource].limit = limit
        group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, amount=AMOUNTS)
    def set_soft_limit(self, pick: int, resource: str, amount: Callable[[int], int]) -> None:
        group = self.group_at(pick)
        limit = clamp(amount(group.usage(resource)))
        self.real[group][resource].soft_limit = limit
        group.counters[resource].soft_limit = limit
        group.changed(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE, marks=st.lists(MARKS, max_size=3), replace=st.booleans())
    def watch(
        self, pick: int, resource: str, marks: list[tuple[Callable[[int], int], bool, bool]], replace: bool
    ) -> None:
        group = self.group_at(pick)
        counter, usage, real = group.counters[resource], group.usage(resource), self.real[group][resource]
        wanted = [
            Mark(clamp(amount(usage)) % 101 if percent else clamp(amount(usage)), below, percent)
            for amount, below, percent in marks
        ]
        old = [watch.id for watch in counter.watches] if replace else []
        made = real.watch(wanted, old)
        new = [ModelWatch(id, mark) for id, mark in zip(made, wanted, strict=True)]
        for watch in new:
            watch.above = watch.is_above(usage, counter.limit)
        counter.watches = new if replace else counter.watches + new
        self.after()

    @rule(pick=PICK, resource=RESOURCE)
    def reset_max_usage(self, pick: int, resource: str) -> None:
        group = self.group_at(pick)
        self.real[group][resource].reset_max_usage()
        counter = group.counters[resource]
        counter.peak = counter.low = group.usage(resource)
        self.after()

    @rule(pick=PICK, resource=RESOURCE)
    def reset_failcnt(self, pick: int, resource: str) -> None:
        group = self.group_at(pick)
        self.real[group][resource].reset_failcnt()
        group.counters[resource].failcnt = 0
        self.after()

    @rule()
    def reap(self) -> None:
        assert self.tree.reap() == 0  # all of them live

    # ---- comparing

    def after(self) -> None:
        if self.eager:
            self.compare()

    @rule()
    def look(self) -> None:
        self.compare()

    def compare(self) -> None:
        assert self.tree.check() == []
        for group, real in self.real.items():
            assert real.path == group.path
            assert [child.name for child in real.children()] == [child.name for child in group.children]
            for resource in RESOURCES:
                self.compare_counter(group, real, resource)
        for resource in RESOURCES:
            self.compare_snapshot(resource)
        for seat in self.seats:
            for resource, charger in seat.chargers.items():
                assert charger.held == seat.group.counters[resource].held[seat.holder]

    def compare_counter(self, group: ModelGroup, real: Group, resource: str) -> None:
        counter = group.counters[resource]
        usage = group.usage(resource)
        stat = real[resource].stat()
        expected = {
            "usage": usage,
            "usage_local": group.local_usage(resource),
            "common": counter.common,
            "holders": len(counter.held),
            "limit": counter.limit,
            "soft_limit": counter.soft_limit,
            "hierarchical_limit": min(above.counters[resource].limit for above in group.upward()),
            "margin": group.margin(resource),
            "hierarchical_margin": group.hierarchical_margin(resource),
            "soft_limit_excess": max(0, usage - counter.soft_limit),
            "failcnt": counter.failcnt,
        }
        assert {key: stat[key] for key in expected} == expected, f"{resource} of {group}"
        assert stat["reserved"] == usage + stat["stock"]
        assert stat["stock"] >= 0
        assert stat["reserved"] <= max(usage, counter.limit)
        assert stat["max_usage"] <= counter.peak <= stat["max_usage"] + stat["error_bound"]
        assert counter.low <= stat["min_usage"] <= usage
        if self.batch == 0:
            assert (stat["stock"], stat["error_bound"], stat["refills"], stat["batch"]) == (0, 0, 0, 0)
            assert (stat["max_usage"], stat["min_usage"]) == (counter.peak, counter.low)
        assert (real[resource].usage, real[resource].max_usage) == (usage, stat["max_usage"])
        assert real[resource].events() == group.events(resource), f"{resource} of {group}"
        for watch in counter.watches:
            assert real[resource].crossings(watch.id) == watch.crossings, f"{watch} of {resource} of {group}"
        assert sorted(holder.held for holder in real[resource].all_holders()) == sorted(counter.held.values())

    def compare_snapshot(self, resource: str) -> None:
        expected = []
        for group, real in self.real.items():
            parent = self.real[group.parent or group]
            expected.append(CounterSnapshot(real.id, parent.id, group.name, *real[resource].stat().values()))
        in_the_snapshot = self.tree.snapshot(resource)
        assert sorted(in_the_snapshot) == sorted(expected)
        seen = {in_the_snapshot[0].id}
        for row in in_the_snapshot:
            assert row.parent in seen, "its parent is to come before it"
            seen.add(row.id)

    def end_all(self) -> None:
        """After the end of all holders, only the charges of the groups themselves are left."""
        for holder in list(self.holders):
            self.end_holder(holder)
        for seat in list(self.seats):
            assert seat.attached is not None
            seat.attached.close()
            self.stand_up(seat, self.keeps[seat.holder])
        self.compare()
        for resource in RESOURCES:
            assert self.root.usage(resource) == sum(group.counters[resource].common for group in self.real)


class ExactCounters(Counters):
    """Without stock: exact."""

    batch = 0


class CountersWithASmallBatch(Counters):
    """With a stock that is too small for most charges."""

    batch = 64


SETTINGS = settings(
    max_examples=2000 if SOAK else 60,
    stateful_step_count=100 if SOAK else 50,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("machine", [Counters, ExactCounters, CountersWithASmallBatch])
def test_the_engine_counts_like_the_model(machine: type[Counters]) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)
