"""Processes that write at the same time, each to a file of its own."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

_fork = multiprocessing.get_context("fork")

# Seconds between the announcement and the start, so that all writers are ready.
NOTICE = 0.002
PATIENCE = 30


class Writers:
    """Processes that repeat a write for a given time; `running` starts and ends them."""

    def __init__(self, paths: Sequence[str], text: bytes) -> None:
        self._controls: list[Connection] = []
        for path in paths:
            ours, theirs = _fork.Pipe()
            _fork.Process(target=self._live, args=(theirs, path, text), daemon=True).start()
            theirs.close()
            self._controls.append(ours)

    @staticmethod
    def _live(control: Connection, path: str, text: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        while span := control.recv():
            begin, end = span
            time.sleep(max(0, begin - time.monotonic()))
            written = 0
            while time.monotonic() < end:
                os.write(descriptor, text)
                written += 1
            control.send(written)

    def write(self, number: int, seconds: float) -> list[int]:
        """The number of writes of each of the first `number` writers in that time."""
        begin = time.monotonic() + NOTICE
        working = self._controls[:number]
        for control in working:
            control.send((begin, begin + seconds))
        try:
            return [_answer(control) for control in working]
        except EOFError:
            raise RuntimeError("a writer has ended") from None

    def end(self) -> None:
        for control in self._controls:
            control.send(None)


def _answer(control: Connection) -> int:
    if not control.poll(PATIENCE):
        raise RuntimeError("a writer does not answer")
    written: int = control.recv()
    return written


@contextmanager
def running(paths: Sequence[str], text: bytes) -> Iterator[Writers]:
    writers = Writers(paths, text)
    try:
        yield writers
    finally:
        writers.end()
