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

    def charge(self, /, **amounts: int) -> None:
        """Charges all of it, or raises LimitExceeded and changes nothing."""
        self.change(self._requested(amounts))

    def uncharge(self, /, **amounts: int) -> None:
        """Gives all of it back, or raises NotHeld and changes nothing."""
        self.change({resource: -amount for resource, amount in self._requested(amounts).items()})

    def hold(self, /, **amounts: int) -> Hold:
        """A context manager: all of it is charged inside, and uncharged after."""
        amounts = self._requested(amounts)
        return Hold(partial(self.charge, **amounts), partial(self.uncharge, **amounts))

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
    def __getitem__(self, resource: str, /) -> object:
        """The counter of a resource.  KeyError."""
