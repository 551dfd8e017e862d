"""Multi-resource requests: amounts of several resources of a group, all at once or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

from fsmount.interface.arguments import checked_amount, checked_timeout

_NONE: Mapping[str, int] = {}
_NAME_AND_AMOUNT = 'name a resource and an amount, such as memory=4096 or {"memory": 4096}'


class MultiRequests(ABC):
    """The multi-resource requests of a group, such as hold(memory=1 << 30, tokens=4) or hold({"memory": 1 << 30}).

    A resource with the name of an option, `wait` or `timeout`, can only be given in a mapping.

    TypeError: no resource is named, or one twice.  KeyError: the group has no resource of this name.  Amounts that
    are refused raise the same errors as those of a counter.
    """

    __slots__ = ()

    def charge(
        self, amounts: Mapping[str, int] = _NONE, /, *, wait: bool = False, timeout: float | None = None, **more: int
    ) -> None:
        """Charges all amounts, or raises LimitExceeded and changes nothing; `wait` and `timeout` as in a counter."""
        timeout = _checked_timeout(wait, timeout)
        requested = self._requested(amounts, more)
        wanted = _above_zero(requested) if wait else {}
        # After a timeout the plain charge finds the limit that refuses.
        if not wanted or not self._charge_in_turn(wanted, timeout):
            self._change(requested)

    async def wait_charge(self, amounts: Mapping[str, int] = _NONE, /, **more: int) -> None:
        """Charges all amounts in a task of trio or asyncio, as soon as there is room and it is the request's turn.

        A cancelled request has charged nothing.
        """
        wanted = _above_zero(self._requested(amounts, more))
        if wanted:
            await self._charge_in_turn_async(wanted)

    def uncharge(self, amounts: Mapping[str, int] = _NONE, /, **more: int) -> None:
        """Releases all amounts, or raises NotHeld and changes nothing."""
        self._change({resource: -amount for resource, amount in self._requested(amounts, more).items()})

    def hold(
        self, amounts: Mapping[str, int] = _NONE, /, *, wait: bool = False, timeout: float | None = None, **more: int
    ) -> AbstractContextManager[None]:
        """A context manager: all amounts are charged inside and uncharged after."""
        return self._hold(self._requested(amounts, more), wait, _checked_timeout(wait, timeout))

    def _requested(self, amounts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
        if not isinstance(amounts, (dict, Mapping)):  # the check for a dict is much faster
            raise TypeError(f"{_NAME_AND_AMOUNT}, not {amounts!r}; or charge a counter: group[resource].charge(amount)")
        if not amounts and not more:
            raise TypeError(_NAME_AND_AMOUNT)
        for resource in amounts.keys() & more.keys():
            raise TypeError(f"{resource} is named twice")
        for resource in (*amounts, *more):
            self[resource]
        return {resource: checked_amount(amount) for resource, amount in (*amounts.items(), *more.items())}

    @abstractmethod
    def __getitem__(self, resource: str, /) -> object:
        """The counter of a resource.  KeyError."""

    @abstractmethod
    def _change(self, amounts: Mapping[str, int], /) -> None:
        """Charges the amounts above 0 and uncharges those below, all at once or nothing."""

    @abstractmethod
    def _hold(self, amounts: dict[str, int], wait: bool, timeout: float | None, /) -> AbstractContextManager[None]:
        """A context manager: the amounts are charged inside and uncharged after."""

    @abstractmethod
    def _charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None, /) -> bool:
        """Charges amounts above 0 at their turn; False: the turn did not come within `timeout` seconds."""

    @abstractmethod
    async def _charge_in_turn_async(self, amounts: Mapping[str, int], /) -> None:
        """Charges amounts above 0 at their turn, in a task that may be cancelled."""


def _above_zero(amounts: Mapping[str, int]) -> dict[str, int]:
    return {resource: amount for resource, amount in amounts.items() if amount > 0}


def _checked_timeout(wait: object, timeout: object) -> float | None:
    """As checked_timeout(); an error adds how to name a resource that is called like the argument."""
    try:
        return checked_timeout(wait, timeout)
    except (TypeError, ValueError) as error:
        name, given = ("timeout", timeout) if isinstance(wait, bool) else ("wait", wait)
        raise type(error)(f'{error} (a resource of this name is given in a mapping: {{"{name}": {given!r}}})') from None
