"""Texts that people and scripts write into control files, right and wrong, and their meaning as numbers."""

from __future__ import annotations

import errno
import random
import re

from tests.mounts import UNLIMITED

TEXT_MAX = 4096


class Refused(Exception):
    """An operation that must fail with one of these errnos."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(*(errno.errorcode[number] for number in numbers))
        self.numbers = numbers


def number(text: bytes) -> int:
    """The number in a text, by the rules for numbers in writes, one by one."""
    match = re.fullmatch(rb"(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)([kKmMgGtTpPeE]?)", text)
    if not match:
        raise Refused(errno.EINVAL)
    digits, suffix = match.groups()
    value = (
        int(digits, 16)
        if digits[1:2] in (b"x", b"X")
        else sum((digit - 48) * 10**place for place, digit in enumerate(reversed(digits)))
    )
    value <<= 10 * (1 + b"kmgtpe".index(suffix.lower())) if suffix else 0
    if value > UNLIMITED:
        raise Refused(errno.ERANGE)
    return value


def limit_number(text: bytes) -> int:
    return UNLIMITED if stripped(text) in (b"-1", b"max") else number(stripped(text))


def stripped(text: bytes) -> bytes:
    return text.split(b"\0")[0].strip(b" \t\n\r\v\f")


# ---- at random


def any_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 2, 3, 5, 8, 20, 100, 1000, 4096, 5000)))


def printable(rng: random.Random) -> bytes:
    return bytes(rng.choices(b" \t\n0123456789abcdefxXkKmMgGtTpPeEiB.,_+-max\\'\"$;", k=rng.randrange(1, 12)))


def near_number(rng: random.Random) -> bytes:
    """A number, or a number with a typing error."""
    value = rng.choice((rng.randrange(10), rng.randrange(2000), rng.randrange(100_000), 1 << rng.randrange(65)))
    text = rng.choice((b"%d", b"%d", b"%d", b"0x%x", b"0x%X", b"0%o")) % value
    if rng.random() < 0.3:
        text += rng.choice((b"k", b"K", b"m", b"M", b"g", b"G", b"T", b"P", b"E", b"kB", b"Ki", b"kk", b".5", b"e3"))
    if rng.random() < 0.3:
        text = rng.choice((b"+", b"-", b"+", b"-", b"++", b"- ", b"--")) + text
    if rng.random() < 0.3:
        text = rng.choice((b" ", b"\n", b"\t\t", b"\v", b"\xa0", b"\0")) + text
    if rng.random() < 0.5:
        text += rng.choice((b"\n", b"\n", b" ", b"\r\n", b"\0", b"\0x", b"\n\n", b" 1", b"\xff"))
    if rng.random() < 0.1:
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) + text[at + rng.randrange(2) :]
    if rng.random() < 0.03:
        text = text.rjust(rng.choice((4095, 4096, 4097, 9000)))
    return text


def word(rng: random.Random) -> bytes:
    return rng.choice((b"max", b"-1", b"max\n", b"-1\n", b"\n", b" ", b"", b"0", b"0\n", b"0x", b"MAX ", b"-0", b"nan"))


def random_text(rng: random.Random) -> bytes:
    kind = rng.choices((near_number, printable, any_bytes, word), (6, 2, 2, 1))[0]
    return kind(rng)
