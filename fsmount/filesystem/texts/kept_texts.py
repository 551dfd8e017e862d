"""Long texts that are being read, kept in little memory.

A reader continues in the text from the start of its read, so there may be thousands of texts of megabytes each.
Therefore a text is kept as compressed pieces, and texts share equal pieces.  A piece ends after a fixed number of
parts, so a change in one place changes one piece.  A reader of a tree that hardly changes costs kilobytes, for a list
of pieces.

All texts together take at most ROOM.  Beyond that, the user whose readers keep most loses the text of the reader that
began first.  That reader gets ESTALE, and may begin again.  So no user takes a text from a user who keeps less.
"""

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Protocol

from fsmount.filesystem.texts import freed_memory

#: How many bytes all texts take at most; the newest text is kept at any length.
ROOM = 32 << 20

#: The size of a piece before compression: it ends with the part that reaches this many bytes.
_PIECE = 24 << 10

_LEVEL = 1

#: How many bytes the lists of a text take, for each piece and for the text.
_PER_PIECE = 16
_PER_TEXT = 512

#: Readers at the same place expand a piece once.
_expand = lru_cache(64)(zlib.decompress)


class Text:
    """A text in compressed pieces.  Any thread may make one."""

    __slots__ = ("_begun", "_begun_length", "ends", "length", "pieces", "readers", "size")

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self.pieces: list[bytes] = []
        self.ends = array("Q")
        self.length = 0
        #: How many bytes it takes if it shares nothing.
        self.size = _PER_TEXT
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

    def extend(self, text: "Text") -> None:
        """Appends another text."""
        self.end()
        text.end()
        self.pieces += text.pieces
        self.ends.extend(self.length + end for end in text.ends)
        self.length += text.length
        self.size += text.size - _PER_TEXT

    def end(self) -> None:
        """Ends the piece that was begun."""
        if not self._begun:
            return
        compressed = zlib.compress(b"".join(self._begun), _LEVEL)
        hash(compressed)  # cached in the bytes: the event loop looks them up quickly
        self.length += self._begun_length
        self.size += _PER_PIECE + len(compressed)
        self.pieces.append(compressed)
        self.ends.append(self.length)
        self._begun, self._begun_length = [], 0

    def __getitem__(self, part: slice) -> bytes:
        offset, end, _ = part.indices(self.length)
        if offset >= end:
            return b""
        first, last = bisect_right(self.ends, offset), bisect_right(self.ends, end - 1)
        begin = self.ends[first - 1] if first else 0
        return b"".join(map(_expand, self.pieces[first : last + 1]))[offset - begin : end - begin]


class Reader(Protocol):
    """An open file or directory that keeps a text, for a user."""

    user: int

    def lose_text(self) -> None:
        """The text is no longer kept: later reads fail."""


class _Piece:
    __slots__ = ("bytes", "uses")

    def __init__(self, compressed: bytes) -> None:
        self.bytes = compressed
        self.uses = 0


class _User:
    """The texts of a user's readers, each with its key; the oldest reader is first."""

    __slots__ = ("readers", "size")

    def __init__(self) -> None:
        self.readers: dict[Reader, tuple[Hashable, Text]] = {}
        self.size = 0


class KeptTexts:
    """The texts of all readers.  For the event loop's thread."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._taken = 0
        self._pieces: dict[bytes, _Piece] = {}
        self._newest: dict[Hashable, Text] = {}
        self._users: dict[int, _User] = {}

    @property
    def taken(self) -> int:
        """How many bytes all texts take."""
        return self._taken

    def keep(self, reader: Reader, key: Hashable, text: Text) -> Text:
        """Keeps a text for a reader, in place of its earlier text; returns the text to read, which readers may share.

        key: texts of the same file have the same key.
        """
        self.drop(reader)
        newest = self._newest.get(key)
        if newest is not None and newest.pieces == text.pieces:
            text = newest
        elif not text.readers:
            self._share(text)
        self._newest[key] = text
        text.readers += 1
        user = self._users.setdefault(reader.user, _User())
        user.readers[reader] = key, text
        user.size += text.size
        while self._taken > self._room and (first := self._first(reader)) is not None:
            self.drop(first)
            first.lose_text()
        return text

    def drop(self, reader: Reader) -> None:
        """Drops the reader's text, if it has one."""
        user = self._users.get(reader.user)
        if user is None or reader not in user.readers:
            return
        key, text = user.readers.pop(reader)
        user.size -= text.size
        if not user.readers:
            del self._users[reader.user]
        text.readers -= 1
        if text.readers == 0:
            if self._newest.get(key) is text:
                del self._newest[key]
            self._unshare(text)

    def _first(self, but: Reader) -> Reader | None:
        """The reader, other than `but`, that loses its text next: the oldest of the user who keeps most."""
        for user in sorted(self._users.values(), key=lambda user: user.size, reverse=True):
            for reader in user.readers:
                if reader is not but:
                    return reader
        return None

    def _share(self, text: Text) -> None:
        """Replaces the text's pieces by equal pieces of other texts."""
        self._taken += _PER_TEXT + _PER_PIECE * len(text.pieces)
        for number, compressed in enumerate(text.pieces):
            piece = self._pieces.get(compressed)
            if piece is None:
                piece = self._pieces[compressed] = _Piece(compressed)
                self._taken += len(compressed)
            piece.uses += 1
            text.pieces[number] = piece.bytes

    def _unshare(self, text: Text) -> None:
        before = self._taken
        self._taken -= _PER_TEXT + _PER_PIECE * len(text.pieces)
        for compressed in text.pieces:
            piece = self._pieces[compressed]
            piece.uses -= 1
            if piece.uses == 0:
                del self._pieces[compressed]
                self._taken -= len(compressed)
        freed_memory.note(before - self._taken)
