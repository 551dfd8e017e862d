"""What people write into a lease."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.quantities import TEXT_MAX, UNLIMITED, parse_lease


def errno_of(text: bytes) -> int:
    with pytest.raises(OSError) as caught:
        parse_lease(text)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (b"0", ("set", 0)),
        (b"4096\n", ("set", 4096)),
        (b"4k", ("set", 4096)),
        (b"+4k", ("add", 4096)),
        (b" +0x10 \n", ("add", 16)),
        (b"-4k", ("subtract", 4096)),
        (b"-1", ("subtract", 1)),
        (b"+0", ("add", 0)),
        (b"-0", ("subtract", 0)),
        (b"give 5", ("give", 5)),
        (b"take \t 5k\n", ("take", 5120)),
        (b"nofail\t1G", ("nofail", 1 << 30)),
        (b"keep\n", ("keep", 0)),
        (b" release", ("release", 0)),
        (b"keep\0it", ("keep", 0)),
        (b"9223372036854775807", ("set", UNLIMITED)),
    ],
)
def test_a_command(text: bytes, meaning: tuple[str, int]) -> None:
    assert parse_lease(text) == meaning


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"+",
        b"-",
        b"+ 5",
        b"- 5",
        b"++5",
        b"+-5",
        b"-010",
        b"max",
        b"-max",
        b"give",
        b"give ",
        b"give5",
        b"give +5",
        b"give -5",
        b"give max",
        b"give 5 6",
        b"give\n5",
        b"nofail",
        b"keep 5",
        b"release 0",
        b"Keep",
        b"charge 5",
        b"5 give",
        b"1.5M",
        b"1e6",
    ],
)
def test_no_command(text: bytes) -> None:
    assert errno_of(text) == errno.EINVAL


@pytest.mark.parametrize("text", [b"8E", b"+8E", b"-8E", b"give 8E", b"nofail 9223372036854775808"])
def test_too_large(text: bytes) -> None:
    assert errno_of(text) == errno.ERANGE


def test_a_text_is_one_page_at_most() -> None:
    assert errno_of(b"+" + b"1" * TEXT_MAX) == errno.E2BIG


@given(st.binary(max_size=10) | st.text("0123456789+-kgiveptakn \0", max_size=9).map(str.encode))
def test_any_text_is_a_command_or_an_error(text: bytes) -> None:
    try:
        operation, amount = parse_lease(text)
    except OSError as error:
        operation, amount = errno.errorcode[error.errno or 0], 0
    assert operation in ("set", "add", "subtract", "give", "take", "nofail", "keep", "release", "EINVAL", "ERANGE")
    assert 0 <= amount <= UNLIMITED
