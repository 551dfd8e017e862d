"""The events of a counter's subtree."""

from collections.abc import Sequence
from typing import ClassVar

from .. import control_files
from ..control_files import Kind
from ..tree import EVENT_KEYS
from .listening_file import ListeningFile


class EventsFile(ListeningFile):
    """`key count` lines."""

    kind: ClassVar[Kind] = control_files.EVENTS

    __slots__ = ()

    def counts(self) -> Sequence[int]:
        return tuple(self.counter.events().values())

    def text(self) -> bytes:
        return "".join(f"{key} {count}\n" for key, count in zip(EVENT_KEYS, self.seen(), strict=True)).encode()
