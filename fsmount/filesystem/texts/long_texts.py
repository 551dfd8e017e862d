"""Reads of long texts: a worker thread makes the text, and the reader keeps it."""

import errno
from collections.abc import Hashable

import trio

from fsmount.control_files.long_file import LongFile
from fsmount.control_files.text import Text
from fsmount.filesystem import guard
from fsmount.filesystem.texts import freed_memory
from fsmount.filesystem.texts.kept_texts import KeptTexts, Reader
from fsmount.filesystem.texts.text_makers import TextMakers


class LongTexts:
    """The texts of open files and directories.  For the event loop's thread."""

    def __init__(self) -> None:
        self._makers = TextMakers()
        self._kept = KeptTexts()

    async def run(self) -> None:
        """Makes texts, and gives their memory back, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._makers.run)
            nursery.start_soon(freed_memory.give_back)

    async def read(self, opened: LongFile, offset: int, size: int) -> bytes:
        """Makes a new text of an open file, and returns the read part of it.  FUSEError."""
        try:
            text = await self._makers.text(opened.user, opened.key(), opened.make)
        except Exception as error:
            raise guard.answer(error, errno.ENODEV) from None
        opened.begin(self.keep(opened, opened.key(), text))
        return text[offset : offset + size]

    def keep(self, reader: Reader, key: Hashable, text: Text) -> Text:
        """Keeps a text for a reader; returns the text to read."""
        return self._kept.keep(reader, key, text)

    def drop(self, reader: Reader) -> None:
        """Drops the text of a closed reader."""
        self._kept.drop(reader)
