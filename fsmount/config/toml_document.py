"""A TOML document, and the line of each of its keys.

tomllib reports no lines of values.  But a document is a sequence of expressions, each on lines of its own and each a
valid document, so parsing them one by one finds the line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Keys = tuple[str, ...]

_CLOSING = {'"""': '"""', "'''": "'''", "[": "]", "{": "}"}


class ConfigError(ValueError):
    """An error in the text of a tree, with its line."""

    def __init__(self, text: str, line: int, file: str | None = None) -> None:
        super().__init__(f"{file or 'line '}{':' if file else ''}{line}: {text}")
        self.text = text
        self.line = line


class Document:
    """The parsed text.  ConfigError: it is not TOML in UTF-8."""

    def __init__(self, text: bytes) -> None:
        try:
            self._text = text.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                "not UTF-8: save the file in that encoding", text.count(b"\n", 0, error.start) + 1
            ) from None
        try:
            self.content = tomllib.loads(self._text)
        except (ValueError, RecursionError) as error:
            raise _syntax_error(self._text, error) from None

    def line_of(self, keys: Keys) -> int:
        """The line where the expression that sets these keys begins."""
        table: Keys = ()
        for number, expression, parsed in _expressions(self._text):
            if expression.lstrip(" \t").startswith("["):
                table = _keys_of_header(parsed)
                if table[: len(keys)] == keys:
                    return number
            elif keys[: len(table)] == table and _has(parsed, keys[len(table) :]):
                return number
        return 1


def _syntax_error(text: str, error: Exception) -> ConfigError:
    if isinstance(error, tomllib.TOMLDecodeError):
        reason = re.sub(r" \(at [^()]*\)$", "", str(error))
        if line := re.search(r" \(at line (\d+), column \d+\)$", str(error)):
            return ConfigError(reason, int(line[1]))
    else:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number that is too long"
    line_of_last = 1
    for number, expression, parsed in _expressions(text):
        if expression.strip():
            line_of_last = number
        if parsed is None:
            break
    return ConfigError(reason, line_of_last)


def _expressions(text: str) -> Iterator[tuple[int, str, Any]]:
    """The expressions of a document: the first line, the text, and the parsed value, or None if it cannot be parsed.

    Only strings and arrays continue on the next line, and a closing mark ends them.
    """
    begin = 1
    pending = ""
    marks = [""]
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            begin = number
            marks = [""]
        pending += line + "\n"
        if not any(mark in line for mark in marks):
            continue
        try:
            parsed = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            marks = [closing for opening, closing in _CLOSING.items() if number == begin and opening in line] or marks
            continue
        except (ValueError, RecursionError):
            parsed = None
        yield begin, pending, parsed
        pending = ""
    if pending:
        yield begin, pending, None


def _keys_of_header(parsed: Any) -> Keys:
    keys: list[str] = []
    while parsed:
        if isinstance(parsed, list):
            parsed = parsed[0]
        else:
            ((key, parsed),) = parsed.items()
            keys.append(key)
    return tuple(keys)


def _has(parsed: Any, keys: Keys) -> bool:
    for key in keys:
        if not isinstance(parsed, dict) or key not in parsed:
            return False
        parsed = parsed[key]
    return bool(keys)
