"""Numbers as text, and their values."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.quantities import TEXT_MAX, UNLIMITED, parse

SUFFIXES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
WHITE = st.text(" \t\n\v\f\r", max_size=5)


def errno_of(text: bytes, *, limit: bool = False) -> int:
    with pytest.raises(OSError) as caught:
        parse(text, limit=limit)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"0\n", 0),
        (b"1", 1),
        (b"42\n", 42),
        (b"4k", 4096),
        (b"4K", 4096),
        (b"4k\r\n", 4096),
        (b" 12288 ", 12288),
        (b"\t\v\f 7 \r\n", 7),
        (b"0k", 0),
        (b"1M", 1 << 20),
        (b"1g", 1 << 30),
        (b"1T", 1 << 40),
        (b"1p", 1 << 50),
        (b"1E", 1 << 60),
        (b"7e", 7 << 60),
        (b"0x10000", 65536),
        (b"0X10", 16),
        (b"0x0", 0),
        (b"0x000000000000000000000001", 1),
        (b"0xff", 255),
        (b"0xFFk", 255 << 10),
        (b"0x1E", 30),
        (b"0x1e", 30),
        (b"0x1EE", 494),
        (b"0x1Ek", 30 << 10),
        (b"0x10K", 16 << 10),
        (b"9223372036854775807", UNLIMITED),
        (b"0x7fffffffffffffff", UNLIMITED),
        (b"8589934591G", 8589934591 << 30),
        (b"5\0", 5),
        (b"5\0 junk", 5),
        (b" 5 \n\0\0\0", 5),
        (b"4k\x00M", 4096),
    ],
)
def test_a_text_is_read_as_its_number(text: bytes, value: int) -> None:
    assert parse(text) == value
    assert parse(text, limit=True) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"\n",
        b"\0",
        b"\x005",
        b" \0 5",
        b"-0",
        b"-2",
        b"+4096",
        b"+0",
        b"--1",
        b"- 1",
        b"12 13",
        b"12\n13",
        b"1 k",
        b"12abc",
        b"abc",
        b"k",
        b"4kB",
        b"4KiB",
        b"4kk",
        b"1.5M",
        b"1.",
        b".5",
        b"1e6",
        b"1E6",
        b"0b10",
        b"0o17",
        b"00",
        b"01",
        b"010",
        b"010000",
        b"00k",
        b"0x",
        b"0xk",
        b"0x g",
        b"x10",
        b"0x-1",
        b"1_000",
        b"1,000",
        b"1'000",
        b"4096;",
        b"MAX",
        b"max ",
        b"maximum",
        b"-1",
        b"unlimited",
        b"infinity",
        b"nan",
        b"\xff",
        b"\xc2\xa05",
        b"\x1c5",
        "٣".encode(),
        "５".encode(),
        "²".encode(),
        b"5\x1f",
    ],
)
def test_a_malformed_number_is_einval(text: bytes) -> None:
    assert errno_of(text) == errno.EINVAL


@pytest.mark.parametrize(
    "text",
    [
        b"9223372036854775808",
        b"18446744073709551616",
        b"0x8000000000000000",
        b"0xffffffffffffffffffffffffffffffff",
        b"8E",
        b"16E",
        b"9007199254740992K",
        b"9" * 4000,
        b"0x" + b"f" * 4000,
        b"9" * 4000 + b"E",
    ],
)
def test_a_number_above_the_largest_is_erange(text: bytes) -> None:
    assert errno_of(text) == errno.ERANGE
    assert errno_of(text, limit=True) == errno.ERANGE


@pytest.mark.parametrize("text", [b"-1", b" -1", b"-1 ", b"-1\n", b"max", b"max\n", b" max ", b"-1\0", b"max\0min"])
def test_a_limit_can_be_unlimited(text: bytes) -> None:
    assert parse(text, limit=True) == UNLIMITED
    assert errno_of(text) == errno.EINVAL


@pytest.mark.parametrize(
    "text", [b"-2", b"-0", b"-1k", b"-01", b"- 1", b"MAX", b"maxk", b"-max", b"max max", b"--1", b""]
)
def test_a_limit_has_no_other_words(text: bytes) -> None:
    assert errno_of(text, limit=True) == errno.EINVAL


def test_a_text_is_one_page_at_most() -> None:
    assert parse(b"1" + b" " * (TEXT_MAX - 1)) == 1
    assert errno_of(b"1" + b" " * TEXT_MAX) == errno.E2BIG
    assert errno_of(b"\0" * (TEXT_MAX + 1)) == errno.E2BIG


def test_an_error_shows_the_written_text() -> None:
    with pytest.raises(OSError, match="'12abc'"):
        parse(b" 12abc\n")
    with pytest.raises(OSError, match=r"'\\xff\\xfe'"):
        parse(b"\xff\xfe")


@given(
    number=st.integers(0, 2**70),
    hexadecimal=st.sampled_from([None, "0x{:x}", "0x{:X}", "0x00{:x}", "0X{:x}"]),
    suffix=st.sampled_from([*SUFFIXES, *map(str.upper, SUFFIXES)]),
    before=WHITE,
    after=WHITE,
    rest=st.sampled_from([b"", b"\0", b"\0 2", b"\0\xff"]),
)
def test_every_spelling_means_the_number(
    number: int, hexadecimal: str | None, suffix: str, before: str, after: str, rest: bytes
) -> None:
    if hexadecimal and suffix in ("e", "E"):
        suffix = ""  # a hexadecimal digit
    value = number << SUFFIXES[suffix.lower()]
    spelled = (hexadecimal or "{}").format(number) + suffix
    text = (before + spelled + after).encode() + rest
    if value <= UNLIMITED:
        assert parse(text) == value
    else:
        assert errno_of(text) == errno.ERANGE


@given(st.binary(max_size=12) | st.text("0123456789xXkKeE- \n\0", max_size=8).map(str.encode), st.booleans())
def test_any_other_text_is_an_error(text: bytes, limit: bool) -> None:
    command = text.split(b"\0")[0].decode("latin-1").strip(" \t\n\v\f\r")
    expected = model(command)
    if limit and command in ("-1", "max"):
        expected = UNLIMITED
    if expected is None:
        assert errno_of(text, limit=limit) == errno.EINVAL
    elif expected > UNLIMITED:
        assert errno_of(text, limit=limit) == errno.ERANGE
    else:
        assert parse(text, limit=limit) == expected


def model(command: str) -> int | None:
    """The grammar again, one character after the other."""
    base, digits = 10, "0123456789"
    if command[:2] in ("0x", "0X"):
        base, digits, command = 16, "0123456789abcdef", command[2:]
    length = 0
    while length < len(command) and command[length].lower() in digits:
        length += 1
    number, suffix = command[:length], command[length:].lower()
    if not number or suffix not in SUFFIXES or (base == 10 and len(number) > 1 and number[0] == "0"):
        return None
    return int(number, base) << SUFFIXES[suffix]
