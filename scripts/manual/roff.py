"""The few man(7) macros that the pages need.  The functions take plain text and return lines."""

from __future__ import annotations

import inspect


def escaped(text: str) -> str:
    """A line of text, escaped so that roff prints it unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def head(name: str, section: int, about: str) -> list[str]:
    return [
        '.\\" Written by scripts/man: change what it is made from, and run that.',
        f'.TH {name.upper()} {section} "" fsmount',
        ".nh",
        ".ad l",
        *title("NAME"),
        f"{name} \\- {escaped(about)}",
    ]


def title(text: str) -> list[str]:
    return [f".SH {escaped(text)}"]


def subtitle(text: str) -> list[str]:
    return [f'.SS "{escaped(text)}"']


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring.  A paragraph that begins with \\b keeps its lines, as click does."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            first, *examples = paragraph.splitlines()[1:]
            lines += [".PP", escaped(first), ".PP", ".EX", *(escaped(line) for line in examples), ".EE"]
        else:
            lines += [".PP", *(escaped(line) for line in paragraph.splitlines())]
    return lines


def item(term: str, text: str) -> list[str]:
    return [".TP", f"\\fB{escaped(term)}\\fR", *(escaped(line) for line in text.splitlines())]
