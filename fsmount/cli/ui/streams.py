"""The standard streams, which may be closed or full.

A command whose output is lost fails with one line about the output.  A reader that ends early, as `head` does, is no
failure: click ends the program quietly at EPIPE.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import click

from fsmount.cli.ui.printable import printable


class OutputLost(Exception):
    """A write to standard output failed; the text is the reason."""

    def __init__(self, error: OSError) -> None:
        why = "it is closed" if error.errno == errno.EBADF else error.strerror
        super().__init__(f"cannot be written: {why}")


def replace_closed() -> None:
    """Opens /dev/null in the place of each closed stream; a COMMAND of `fsmount run` still finds the stream closed.

    Otherwise the next open file, such as a lease, would get the number of the stream, and with it all text written to
    the stream.  In the place of standard output, /dev/null is read-only: a command that prints fails and says why.
    If standard error is closed too, as in children of some daemons, no output is expected and /dev/null takes it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        if descriptor == 1 and _is_open(2):
            os.close(descriptor)
            os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  open until the process ends
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def echo(text: str | bytes = "", *, nl: bool = True) -> None:
    """Writes a line, or a text as it is, to standard output.  OutputLost."""
    with writing():
        click.echo(text, nl=nl)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Turns an error of standard output in the block into OutputLost."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(error) from None


def complain(text: str) -> None:
    """Prints one line on standard error if that is possible."""
    try:
        print(printable(" ".join(text.splitlines())), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Redirects a failing stream: its flush at the end of the interpreter would change the exit status."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Program(click.Command):
    """A command line that ends with one line if a stream fails, even while it prints help, version or usage errors."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        replace_closed()
        try:
            sys.exit(self._status(args, prog_name, complete_var, **extra))
        finally:
            gc.freeze()  # saves the last garbage collection, which takes 5 ms

    def _status(self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, **extra: Any) -> Any:
        try:
            return super().main(args, prog_name, complete_var, False, **extra) or 0
        except click.ClickException as error:
            try:
                error.show()
            except OSError:
                _silence(sys.stderr)
            return error.exit_code
        except click.Abort:  # ^C before the command has begun
            return 1
        except OutputLost as lost:
            return _lost(lost)
        except OSError as error:  # of click's own output: any other error has ended the program with its line
            if error.filename is not None:
                raise
            return _lost(OutputLost(error))


def _lost(lost: OutputLost) -> int:
    complain(f"fsmount: standard output: {lost}")
    return 1
