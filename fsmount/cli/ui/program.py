"""The file of a command, found as execvp() finds it: a wrong name fails before `fsmount run` waits for room."""

from __future__ import annotations

import contextlib
import errno
import os
import stat


def find_program(command: str) -> str:
    """The path of the file that a command runs.

    FileNotFoundError: the file or its interpreter is missing.  PermissionError: the file cannot be run.
    """
    if "/" in command:
        return _checked(command)
    missing = FileNotFoundError(errno.ENOENT, "there is no such command", command)
    refused: PermissionError | None = None
    for directory in os.get_exec_path() if command else ():
        try:
            return _checked(os.path.join(directory, command))
        except FileNotFoundError as error:  # a later directory may have the file
            missing = error if error.filename2 else missing
        except PermissionError as error:
            refused = refused or error
    raise refused or missing


def _checked(path: str) -> str:
    """The path if it is a file that can be run; errors as those of find_program()."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "there is no such command", path) from None
    except OSError as error:
        raise PermissionError(errno.EACCES, error.strerror, path) from None
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK, effective_ids=True):
        why = "it is a directory" if stat.S_ISDIR(mode) else os.strerror(errno.EACCES)
        raise PermissionError(errno.EACCES, why, path)
    interpreter = _interpreter(path)
    if interpreter and not os.path.exists(interpreter):
        why = f"its first line names the interpreter {interpreter}, which does not exist"
        raise FileNotFoundError(errno.ENOENT, why, path, None, interpreter)
    return path


def _interpreter(path: str) -> str | None:
    """The program that the first line of a script names."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        first, _, words = file.read(256).partition(b"\n")[0].partition(b"#!")
        if not first and words.split():
            return os.fsdecode(words.split()[0])
    return None
