"""The events of a counter's subtree."""

from collections.abc import Sequence
from typing import ClassVar

from fsmount.control_files.listening import ListeningFile
from fsmount.protocol import file_table
from fsmount.protocol.file_table import Kind
from fsmount.protocol.listings import EVENT_KEYS


class EventsFile(ListeningFile):
    """`key count` lines."""

    kind: ClassVar[Kind] = file_table.EVENTS

    __slots__ = ()

    def counts(self) -> Sequence[int]:
        return tuple(self.counter.events().values())

    def text(self) -> bytes:
        return "".join(f"{key} {count}\n" for key, count in zip(EVENT_KEYS, self.seen(), strict=True)).encode()
