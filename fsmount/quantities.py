"""Numbers as people write them into files.

The grammar is the kernel's (memparse in lib/cmdline.c) without its accidents: nothing wraps, nothing is rounded,
nothing is octal.  A number is decimal, or hexadecimal with 0x, then at most one suffix of K M G T P E in either
case, powers of 1024.  White space around it does not count, and a NUL ends the text.

Everything works on bytes: a digit is one of ten, whatever else Unicode calls a digit.
"""

import errno
import os
import re

UNLIMITED = 2**63 - 1

#: The longest text of one command, as in the kernel.
TEXT_MAX = 4096

#: So many digits always fit.
_DIGITS_SAFE = len(str(UNLIMITED)) - 1

_NUMBER = re.compile(rb"(?:(0|[1-9][0-9]*)|0[xX]([0-9a-fA-F]+))([kKmMgGtTpPeE]?)")
_SHIFTS = {b"": 0} | {
    bytes([c]): 10 * n for n, pair in enumerate((b"kK", b"mM", b"gG", b"tT", b"pP", b"eE"), 1) for c in pair
}
#: No decimal number this long fits; int() is slow on long ones.
_DIGITS_MAX = len(str(UNLIMITED))

_ZERO = ord("0")

_SUFFIXES = "KMGTPE"

_LEASE_SIGNS = {b"+": "add", b"-": "subtract"}
_LEASE_AMOUNT_WORDS = {b"give", b"take", b"nofail", b"wait"}
_LEASE_WORDS = {b"keep", b"release", b"wait"}


def strip(text: bytes) -> bytes:
    """The command in what was written: up to a NUL, without white space around it; OSError(E2BIG) above 4096 bytes."""
    if len(text) > TEXT_MAX:
        raise _error(errno.E2BIG, text)
    if b"\0" in text:
        text = text[: text.index(b"\0")]
    return text.strip()


def parse(text: bytes, *, limit: bool = False) -> int:
    """The quantity that was written, 0 to UNLIMITED.

    With `limit`, `-1` and `max` mean UNLIMITED.  OSError: ERANGE above UNLIMITED, E2BIG for more than
    4096 bytes, EINVAL for anything that is not one number.
    """
    text = strip(text)
    if limit and text in (b"-1", b"max"):
        return UNLIMITED
    return _number(text)


def parse_quantity(text: str | bytes) -> int:
    """The amount that a text such as "12G", "0x10" or "4096" stands for: 0 to UNLIMITED, which "max" stands for too.

    The unit is that of the resource; a suffix is a power of 1024.  ValueError: not a number.  OverflowError: above
    UNLIMITED.  TypeError: not text.
    """
    if not isinstance(text, str | bytes):
        raise TypeError(f"a quantity is read from a str or bytes, not {type(text).__name__}")
    data = os.fsencode(text)
    try:
        return UNLIMITED if strip(data) == b"max" else _number(strip(data))
    except OSError as error:
        if error.errno == errno.ERANGE:
            raise OverflowError(f"{_shown(data)} is above {UNLIMITED}, the largest quantity") from None
        raise ValueError(f"{_shown(data)} is no quantity such as 4096, 64K or 2G") from None


def format_quantity(amount: int) -> str:
    """The shortest exact text for an amount, with a suffix where it is a whole multiple: 12884901888 is "12G".

    UNLIMITED is "max".  parse_quantity() gives the amount back.  ValueError: below 0.  OverflowError: above UNLIMITED.
    TypeError: no int, or a bool.
    """
    if type(amount) is not int:
        raise TypeError(f"a quantity is an int, not {type(amount).__name__}")
    if amount < 0:
        raise ValueError(f"a quantity is not negative, as {amount} is")
    if amount > UNLIMITED:
        raise OverflowError(f"{amount} is above {UNLIMITED}, the largest quantity")
    if amount == UNLIMITED:
        return "max"
    power = 0
    while amount and amount % 1024 == 0:
        amount //= 1024
        power += 1
    return f"{amount}{_SUFFIXES[power - 1] if power else ''}"


def parse_lease(text: bytes) -> tuple[str, int]:
    """The command of a lease: (operation, amount).

    `N` set, `+N` add, `-N` subtract, `give N`, `take N`, `nofail N`, `wait N`, and, with an amount of 0, `keep`,
    `release` and `wait`.
    Errors as in parse().
    """
    text = strip(text)
    if text in _LEASE_WORDS:
        return text.decode(), 0
    sign = _LEASE_SIGNS.get(text[:1])
    if sign:
        return sign, _number(text[1:])
    word, space, amount = text.replace(b"\t", b" ").partition(b" ")
    if space and word in _LEASE_AMOUNT_WORDS:
        return word.decode(), _number(amount.strip())
    return "set", _number(text)


def parse_group_lease(text: bytes) -> tuple[str, dict[str, tuple[str, int]]]:
    """The command of a lease of all resources: (word, resource -> (operation, amount)).

    `R=N...` set, `R=+N...` add and `R=-N...` subtract, also mixed, are the word `change`.  `give R=N...`,
    `take R=N...`, `wait R=N...` and, of one resource, `nofail R=N` set; `give`, `keep`, `release` and `wait` alone
    have no amounts.  Errors as in parse();
    EINVAL also for a resource that is named twice.
    """
    first, *words = strip(text).split() or [b""]
    if not words and (first in _LEASE_WORDS or first == b"give"):
        return first.decode(), {}
    if first not in _LEASE_AMOUNT_WORDS:
        words = [first, *words]
    elif not words or (first == b"nofail" and len(words) > 1):
        raise _error(errno.EINVAL, text)
    found: dict[str, tuple[str, int]] = {}
    for word in words:
        name, equals, amount = word.rpartition(b"=")
        resource = os.fsdecode(name)
        sign = _LEASE_SIGNS.get(amount[:1]) if first not in _LEASE_AMOUNT_WORDS else None
        if not equals or resource in found:
            raise _error(errno.EINVAL, text)
        found[resource] = (sign, _number(amount[1:])) if sign else ("set", _number(amount))
    return (first.decode() if first in _LEASE_AMOUNT_WORDS else "change"), found


def _number(text: bytes) -> int:
    shift = _SHIFTS.get(text[-1:], 0)
    digits = text[:-1] if shift else text
    if digits.isdigit() and len(digits) <= _DIGITS_SAFE and (digits[0] != _ZERO or len(digits) == 1):
        value = int(digits) << shift  # the usual form, three times as fast
        if value > UNLIMITED:
            raise _error(errno.ERANGE, text)
        return value
    match = _NUMBER.fullmatch(text)
    if not match:
        raise _error(errno.EINVAL, text)
    decimal, hexadecimal, suffix = match.groups()
    if decimal is None:
        value = int(hexadecimal, 16)
    elif len(decimal) > _DIGITS_MAX:
        raise _error(errno.ERANGE, text)
    else:
        value = int(decimal)
    value <<= _SHIFTS[suffix]
    if value > UNLIMITED:
        raise _error(errno.ERANGE, text)
    return value


def _error(code: int, text: bytes) -> OSError:
    return OSError(code, f"{os.strerror(code)}: {_shown(text)}")


def _shown(text: bytes) -> str:
    """In quotes and escaped, since it may come to a terminal, or into a log; cut where it is long."""
    return "'" + repr(text[:64])[2:-1] + ("..." if len(text) > 64 else "") + "'"
