"""Whole requests: several resources of a group at once, all of it or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

from fsmount.interface.arguments import checked_amount, checked_timeout

_NONE: Mapping[str, int] = {}
_NAME_AND_AMOUNT = 'name a resource and an amount, such as memory=4096 or {"memory": 4096}'


class WholeRequests(ABC):
    """What a group can be asked for as a whole, as in hold(memory=1 << 30, tokens=4) or hold({"memory": 1 << 30}).

    A resource that is called as an argument, `wait` or `timeout`, can only be named in the second way.

    TypeError: no resource is named, or one twice.  KeyError: there is none of this name; else as with a counter.
    """

    __slots__ = ()

    def charge(
        self, amounts: Mapping[str, int] = _NONE, /, *, wait: bool = False, timeout: float | None = None, **more: int
    ) -> None:
        """Charges all of it, or raises LimitExceeded and changes nothing; wait and timeout as those of a counter."""
        timeout = _timeout(wait, timeout)
        if wait:
            self.charge_waiting(self._requested(amounts, more), timeout)
        else:
            self.change(self._requested(amounts, more))

    def charge_waiting(self, amounts: Mapping[str, int], timeout: float | None) -> None:
        """Charges all of it when it is its turn; LimitExceeded if that takes longer than so many seconds."""
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        if not wanted or not self.charge_in_turn(wanted, timeout):
            self.change(amounts)  # says who refuses; or there is room, for one who is in no line

    async def wait_charge(self, amounts: Mapping[str, int] = _NONE, /, **more: int) -> None:
        """Charges all of it as soon as there is room and it is its turn, in a task of trio or asyncio.

        Cancelled, it has charged nothing.
        """
        wanted = {resource: amount for resource, amount in self._requested(amounts, more).items() if amount > 0}
        if wanted:
            await self.charge_in_turn_async(wanted)

    def uncharge(self, amounts: Mapping[str, int] = _NONE, /, **more: int) -> None:
        """Gives all of it back, or raises NotHeld and changes nothing."""
        self.change({resource: -amount for resource, amount in self._requested(amounts, more).items()})

    def hold(
        self, amounts: Mapping[str, int] = _NONE, /, *, wait: bool = False, timeout: float | None = None, **more: int
    ) -> AbstractContextManager[None]:
        """A context manager: all of it is charged inside, and uncharged after."""
        return self.hold_requested(self._requested(amounts, more), wait, _timeout(wait, timeout))

    def _requested(self, amounts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
        if not isinstance(amounts, (dict, Mapping)):  # a dict is known much faster
            raise TypeError(f"{_NAME_AND_AMOUNT}, not {amounts!r}; or charge a counter: group[resource].charge(amount)")
        if not amounts and not more:
            raise TypeError(_NAME_AND_AMOUNT)
        for resource in amounts.keys() & more.keys():
            raise TypeError(f"{resource} is named twice")
        for resource in (*amounts, *more):
            self[resource]
        return {resource: checked_amount(amount) for resource, amount in (*amounts.items(), *more.items())}

    @abstractmethod
    def change(self, amounts: Mapping[str, int]) -> None:
        """Charges what is above 0 and gives back what is below: all at once, or nothing."""

    @abstractmethod
    def hold_requested(
        self, amounts: dict[str, int], wait: bool, timeout: float | None
    ) -> AbstractContextManager[None]:
        """A context manager: all of it is charged inside, and uncharged after."""

    @abstractmethod
    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> bool:
        """Charges amounts above 0 when it is their turn; False if that takes longer than so many seconds."""

    @abstractmethod
    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        """The same for a task, which may be cancelled."""

    @abstractmethod
    def __getitem__(self, resource: str, /) -> object:
        """The counter of a resource.  KeyError."""


def _timeout(wait: object, timeout: object) -> float | None:
    """As checked_timeout(); what is wrong for the argument may have been meant for a resource."""
    try:
        return checked_timeout(wait, timeout)
    except (TypeError, ValueError) as error:
        name, given = ("timeout", timeout) if isinstance(wait, bool) else ("wait", wait)
        raise type(error)(f'{error} (a resource of this name is given in a mapping: {{"{name}": {given!r}}})') from None
