"""The standard streams: some may be closed, others take nothing.

A command whose output is lost has failed, and says so in one line about the output.  A reader that wants no more, as
`head`, is no such failure: click ends the program quietly at EPIPE.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import click

from fsmount.cli.ui.printable import printable


class OutputLost(Exception):
    """Standard output took no more; says why."""

    def __init__(self, error: OSError) -> None:
        why = "it is closed" if error.errno == errno.EBADF else error.strerror
        super().__init__(f"cannot be written: {why}")


def replace_closed() -> None:
    """Puts /dev/null in the place of each stream that is closed; a command that we run finds it closed all the same.

    Otherwise the next file to be opened, such as a lease, would have the stream's number, and get what is written to
    the stream.  Standard output is then one that cannot be written, so that a command that writes there fails and says
    why; but not where standard error is closed too, as with the children of some daemons, which want no output.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        if descriptor == 1 and _is_open(2):
            os.close(descriptor)
            os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  for as long as the process lives
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
    """Tells an error of standard output from others.  OutputLost."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(error) from None


def complain(text: str) -> None:
    """One line on standard error, if that takes it; the exit status says the rest."""
    try:
        print(printable(" ".join(text.splitlines())), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Output that a stream does not take would fail again when the interpreter ends, and change the exit status."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Program(click.Command):
    """A program that ends with one line also where click itself writes: help, the version, a wrong command line."""

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
            status = super().main(args, prog_name, complete_var, False, **extra) or 0
        except click.ClickException as error:
            status = error.exit_code
            try:
                error.show()
            except OSError:
                _silence(sys.stderr)
        except click.Abort:  # ^C before the command has begun
            status = 1
        except OutputLost as lost:
            status = _lost(lost)
        except OSError as error:  # of click's own output: what goes wrong elsewhere has ended with a line of its own
            if error.filename is not None:
                raise
            status = _lost(OutputLost(error))
        sys.exit(status)


def _lost(lost: OutputLost) -> int:
    complain(f"fsmount: standard output: {lost}")
    return 1
