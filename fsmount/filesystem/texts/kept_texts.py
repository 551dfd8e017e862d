"""Long texts that somebody is reading, kept in little memory.

A read goes on in the text as it was when the reader began, so each reader may have a text of its own: thousands of
texts, of megabytes each.  So a text is kept as compressed pieces, and texts share the pieces that are equal.  A piece
ends after a fixed number of parts, so a change in one place changes one piece.  A reader of a tree that hardly changes
costs a list of pieces: kilobytes.

All texts together take at most ROOM.  Beyond that the user whose readers keep most loses the text of the reader that
began first: that reader gets ESTALE, and may begin again.  So no user takes a text from a user who keeps less.
"""

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Protocol

from fsmount.filesystem.texts import freed_memory

#: The bytes that all texts take at most; the newest text is kept however long it is.
ROOM = 32 << 20

#: The bytes of a piece before it is compressed: a piece ends with the part that reaches this.
_PIECE = 24 << 10

_LEVEL = 1
_PER_PIECE = 16  # a text's own lists
_PER_TEXT = 512

#: Readers that follow each other expand a piece once.
_expand = lru_cache(64)(zlib.decompress)


class Text:
    """A text in compressed pieces.  Any thread may make one."""

    __slots__ = ("_begun", "_begun_length", "ends", "length", "pieces", "readers", "size")

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self.pieces: list[bytes] = []
        self.ends = array("Q")
        self.length = 0
        #: The bytes it takes if it shares nothing.
        self.size = _PER_TEXT
        self.readers = 0
        self._begun: list[bytes] = []  # of the piece to come
        self._begun_length = 0
        for part in parts:
            self.add(part)
        self.end()

    def add(self, part: bytes) -> None:
        """Some lines at the end."""
        self._begun.append(part)
        self._begun_length += len(part)
        if self._begun_length >= _PIECE:
            self.end()

    def extend(self, text: "Text") -> None:
        """Another text at the end."""
        self.end()
        text.end()
        self.pieces += text.pieces
        self.ends.extend(self.length + end for end in text.ends)
        self.length += text.length
        self.size += text.size - _PER_TEXT

    def end(self) -> None:
        """The piece that was begun ends here."""
        if not self._begun:
            return
        compressed = zlib.compress(b"".join(self._begun), _LEVEL)
        hash(compressed)  # bytes remember it: the event loop finds them quickly
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
    """Somebody who keeps a text, for a user."""

    user: int

    def lose_text(self) -> None:
        """The text is no longer kept."""


class _Piece:
    __slots__ = ("bytes", "uses")

    def __init__(self, compressed: bytes) -> None:
        self.bytes = compressed
        self.uses = 0


class _User:
    """The texts of a user's readers, each with its key; the reader that began first is at the front."""

    __slots__ = ("readers", "size")

    def __init__(self) -> None:
        self.readers: dict[Reader, tuple[Hashable, Text]] = {}
        self.size = 0


class KeptTexts:
    """The texts of all readers.  All methods are for the event loop's thread."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._taken = 0
        self._pieces: dict[bytes, _Piece] = {}
        self._newest: dict[Hashable, Text] = {}
        self._users: dict[int, _User] = {}

    @property
    def taken(self) -> int:
        """The bytes that all texts take."""
        return self._taken

    def keep(self, reader: Reader, key: Hashable, text: Text) -> Text:
        """Keeps a text for a reader, in place of its text before; returns the text to read, which others may share.

        key: the texts of one key are of the same file.
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
        """Nobody reads on in the reader's text, if it has one."""
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
        """The reader that loses its text next: of the user with the most, or of another if that has only one."""
        for user in sorted(self._users.values(), key=lambda user: user.size, reverse=True):
            for reader in user.readers:
                if reader is not but:
                    return reader
        return None

    def _share(self, text: Text) -> None:
        """The text's pieces are those that are there already, where they are equal."""
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
