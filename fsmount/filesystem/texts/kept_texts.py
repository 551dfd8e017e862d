"""Long texts that are being read, kept in little memory.

A reader continues in the text that it began to read, so there may be thousands of texts of megabytes each.  Therefore a
text is kept as compressed pieces, and texts share equal pieces.  A piece ends after a fixed number of parts, so a
change in one place changes one piece.  If the tree hardly changes, one more reader costs a few kilobytes for a list of
pieces.

All texts together take at most ROOM bytes.  If a new text exceeds that, the user whose readers keep most loses a text,
the oldest one.  Its reader gets ESTALE, and may begin again.  So no user takes a text from a user who keeps less.
"""

from collections.abc import Hashable
from typing import Protocol

from fsmount.control_files.text import BYTES_PER_PIECE, BYTES_PER_TEXT, Text
from fsmount.filesystem.texts import freed_memory

#: The largest size of all texts together, in bytes; the newest text is kept at any length.
ROOM = 32 << 20


class Reader(Protocol):
    """An open file or directory that keeps a text, for a user."""

    user: int

    def lose_text(self) -> None:
        """Gives up the text, which is no longer kept: later reads fail."""


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
        """The size of all texts together, in bytes."""
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
        self._taken += BYTES_PER_TEXT + BYTES_PER_PIECE * len(text.pieces)
        for number, compressed in enumerate(text.pieces):
            piece = self._pieces.get(compressed)
            if piece is None:
                piece = self._pieces[compressed] = _Piece(compressed)
                self._taken += len(compressed)
            piece.uses += 1
            text.pieces[number] = piece.bytes

    def _unshare(self, text: Text) -> None:
        before = self._taken
        self._taken -= BYTES_PER_TEXT + BYTES_PER_PIECE * len(text.pieces)
        for compressed in text.pieces:
            piece = self._pieces[compressed]
            piece.uses -= 1
            if piece.uses == 0:
                del self._pieces[compressed]
                self._taken -= len(compressed)
        freed_memory.note(before - self._taken)
