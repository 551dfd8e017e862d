"""A long text in compressed pieces.

A piece ends after a fixed number of parts, so a change in one place changes one piece.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

#: The bytes that a text takes besides its pieces, and for each piece.
BYTES_PER_TEXT, BYTES_PER_PIECE = 512, 16

#: The length of a piece before it is compressed: a piece ends with the part that reaches it.
_PIECE = 24 << 10

_LEVEL = 1

#: Readers that follow each other expand a piece once.
_expand = lru_cache(64)(zlib.decompress)


class Text:
    """A text in compressed pieces.  Any thread may make one."""

    __slots__ = ("_begun", "_begun_length", "ends", "length", "pieces", "readers", "size")

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self.pieces: list[bytes] = []
        self.ends = array("Q")
        self.length = 0
        #: The bytes that the text takes if it shares nothing.
        self.size = BYTES_PER_TEXT
        self.readers = 0
        self._begun: list[bytes] = []  # parts of the next piece
        self._begun_length = 0
        for part in parts:
            self.add(part)
        self.end()

    def add(self, part: bytes) -> None:
        """Appends some lines."""
        self._begun.append(part)
        self._begun_length += len(part)
        if self._begun_length >= _PIECE:
            self.end()

    def extend(self, text: Text) -> None:
        """Appends another text."""
        self.end()
        text.end()
        self.pieces += text.pieces
        self.ends.extend(self.length + end for end in text.ends)
        self.length += text.length
        self.size += text.size - BYTES_PER_TEXT

    def end(self) -> None:
        """Ends the piece that was begun."""
        if not self._begun:
            return
        compressed = zlib.compress(b"".join(self._begun), _LEVEL)
        hash(compressed)  # cached in the bytes: the event loop looks them up quickly
        self.length += self._begun_length
        self.size += BYTES_PER_PIECE + len(compressed)
        self.pieces.append(compressed)
        self.ends.append(self.length)
        self._begun, self._begun_length = [], 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> bytes:
        offset, end, _ = part.indices(self.length)
        if offset >= end:
            return b""
        first, last = bisect_right(self.ends, offset), bisect_right(self.ends, end - 1)
        begin = self.ends[first - 1] if first else 0
        return b"".join(map(_expand, self.pieces[first : last + 1]))[offset - begin : end - begin]
