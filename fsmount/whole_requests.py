"""Whole requests: several resources of a group at once, all of it or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial

from . import engine
from .counter import Hold


class WholeRequests(ABC):
    """What a group can be asked for as a whole, as in hold(memory=1 << 30, tokens=4).

    TypeError: no resource is named.  KeyError: there is none of this name; else as with a counter.
    """

    __slots__ = ()

    def charge(self, /, *, wait: bool = False, timeout: float | None = None, **amounts: int) -> None:
        """Charges all of it, or raises LimitExceeded and changes nothing; wait and timeout as those of a counter."""
        if timeout is not None and not wait:
            raise ValueError("timeout is for a charge that waits: wait=True")
        if wait:
            self.charge_waiting(self._requested(amounts), timeout)
        else:
            self.change(self._requested(amounts))

    def charge_waiting(self, amounts: Mapping[str, int], timeout: float | None) -> None:
        """Charges all of it when it is its turn; LimitExceeded if that takes longer than so many seconds."""
        wanted = {resource: amount for resource, amount in amounts.items() if amount > 0}
        if not wanted or not self.charge_in_turn(wanted, timeout):
            self.change(amounts)  # says who refuses; or there is room, for one who is in no line

    async def wait_charge(self, /, **amounts: int) -> None:
        """Charges all of it as soon as there is room and it is its turn, in a task of trio or asyncio.

        Cancelled, it has charged nothing.
        """
        wanted = {resource: amount for resource, amount in self._requested(amounts).items() if amount > 0}
        if wanted:
            await self.charge_in_turn_async(wanted)

    def uncharge(self, /, **amounts: int) -> None:
        """Gives all of it back, or raises NotHeld and changes nothing."""
        self.change({resource: -amount for resource, amount in self._requested(amounts).items()})

    def hold(self, /, *, wait: bool = False, timeout: float | None = None, **amounts: int) -> Hold:
        """A context manager: all of it is charged inside, and uncharged after."""
        amounts = self._requested(amounts)
        return Hold(partial(self.charge, wait=wait, timeout=timeout, **amounts), partial(self.uncharge, **amounts))

    def _requested(self, amounts: dict[str, int]) -> dict[str, int]:
        if not amounts:
            raise TypeError("name a resource and an amount, such as memory=4096")
        for resource in amounts:
            self[resource]
        return {resource: engine.amount(amount) for resource, amount in amounts.items()}

    @abstractmethod
    def change(self, amounts: Mapping[str, int]) -> None:
        """Charges what is above 0 and gives back what is below: all at once, or nothing."""

    @abstractmethod
    def charge_in_turn(self, amounts: Mapping[str, int], timeout: float | None) -> bool:
        """Charges amounts above 0 when it is their turn; False if that takes longer than so many seconds."""

    @abstractmethod
    async def charge_in_turn_async(self, amounts: Mapping[str, int]) -> None:
        """The same for a task, which may be cancelled."""

    @abstractmethod
    def __getitem__(self, resource: str, /) -> object:
        """The counter of a resource.  KeyError."""
