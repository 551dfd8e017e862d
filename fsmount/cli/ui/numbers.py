"""Amounts as text for people: in a column of a table, or in a message."""

from __future__ import annotations

from fsmount.quantities import UNLIMITED, format_quantity

# A larger number of bytes is hard to read without a suffix.
_READABLE = 10_000


def size(number: int) -> str:
    """Bytes in powers of 1024: 1023, 1.0K, 9.8M, 12G."""
    power = (number.bit_length() - 1) // 10
    if power < 1:
        return str(number)
    value = number / 1024**power
    return f"{value:.{int(value < 9.95)}f}{'KMGTPE'[power - 1]}"


def number(amount: int, unit: str) -> str:
    """An amount in its unit; UNLIMITED is max."""
    if amount == UNLIMITED:
        return "max"
    return size(amount) if unit == "bytes" else str(amount)


def described(amount: int, unit: str, typed: str = "") -> str:
    """An amount for a message: as typed or in its shortest form, with the exact number beside it."""
    exact = str(amount)
    if amount == UNLIMITED:
        return "max"
    if unit != "bytes":
        return exact if typed in ("", exact) else f"{typed} ({exact})"
    short = typed or (format_quantity(amount) if amount >= _READABLE else exact)
    if not typed and len(short) > len("1023M"):
        short = f"about {size(amount)}"
    return exact if short == exact else f"{short} ({exact} bytes)"
