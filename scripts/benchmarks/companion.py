"""A second process that works beside the measured one."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from .measure import Case

_fork = multiprocessing.get_context("fork")

PATIENCE = 30.0


class Companion:
    """A process that repeats its work while a case runs. It calls `prepare` once to get the work.

    The companion ends when its parent ends, because the pipe closes then.
    """

    def __init__(self, prepare: Callable[[], Case]) -> None:
        self._control, control = _fork.Pipe()
        self._process = _fork.Process(target=self._live, args=(control, prepare), daemon=True)
        self._process.start()
        control.close()

    def _live(self, control: Connection, prepare: Callable[[], Case]) -> None:
        self._control.close()
        work = prepare()
        try:
            while control.recv():
                work()
                control.send(True)
                while not control.poll():
                    work()
                control.recv()
                control.send(True)
        except (EOFError, BrokenPipeError):
            pass

    @contextmanager
    def working(self) -> Iterator[None]:
        self._ask()
        try:
            yield
        finally:
            self._ask()

    def _ask(self) -> None:
        self._control.send(True)
        if not self._control.poll(PATIENCE):
            raise RuntimeError("the second process does not answer")
        self._control.recv()

    def beside(self, case: Case) -> Case:
        """The case, beside the working companion."""

        def run() -> float:
            with self.working():
                return case()

        return run

    def end(self) -> None:
        self._control.send(False)
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
