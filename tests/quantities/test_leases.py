"""The commands of a lease."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.quantities import TEXT_MAX, UNLIMITED, parse_group_lease, parse_lease


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
        (b"wait 4K\n", ("wait", 4096)),
        (b"wait", ("wait", 0)),
        (b"keep\0it", ("keep", 0)),
        (b"9223372036854775807", ("set", UNLIMITED)),
    ],
)
def test_a_text_is_a_command(text: bytes, meaning: tuple[str, int]) -> None:
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
def test_a_malformed_text_is_einval(text: bytes) -> None:
    assert errno_of(text) == errno.EINVAL


@pytest.mark.parametrize("text", [b"8E", b"+8E", b"-8E", b"give 8E", b"nofail 9223372036854775808"])
def test_an_amount_above_the_largest_is_erange(text: bytes) -> None:
    assert errno_of(text) == errno.ERANGE


def test_a_text_is_one_page_at_most() -> None:
    assert errno_of(b"+" + b"1" * TEXT_MAX) == errno.E2BIG


@given(st.binary(max_size=10) | st.text("0123456789+-kgiveptakn \0", max_size=9).map(str.encode))
def test_any_text_is_a_command_or_an_error(text: bytes) -> None:
    try:
        operation, amount = parse_lease(text)
    except OSError as error:
        operation, amount = errno.errorcode[error.errno or 0], 0
    assert operation in (
        "set",
        "add",
        "subtract",
        "give",
        "take",
        "nofail",
        "wait",
        "keep",
        "release",
        "EINVAL",
        "ERANGE",
    )
    assert 0 <= amount <= UNLIMITED


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (b"memory=8G", ("change", {"memory": ("set", 8 << 30)})),
        (b" a=1\tb=+2k\nc=-0x3 ", ("change", {"a": ("set", 1), "b": ("add", 2048), "c": ("subtract", 3)})),
        (b"give=1 take=2", ("change", {"give": ("set", 1), "take": ("set", 2)})),
        (b"a=b=1", ("change", {"a=b": ("set", 1)})),
        (b"give", ("give", {})),
        (b"give a=1 b=2", ("give", {"a": ("set", 1), "b": ("set", 2)})),
        (b"take a=1", ("take", {"a": ("set", 1)})),
        (b"nofail a=1", ("nofail", {"a": ("set", 1)})),
        (b"keep\n", ("keep", {})),
        (b"release", ("release", {})),
        (b"wait", ("wait", {})),
        (b"wait memory=4K tokens=1", ("wait", {"memory": ("set", 4096), "tokens": ("set", 1)})),
    ],
)
def test_a_text_is_a_command_of_several_resources(text: bytes, meaning: tuple[str, dict[str, tuple[str, int]]]) -> None:
    assert parse_group_lease(text) == meaning


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(
            (text, errno.EINVAL)
            for text in (b"", b" ", b"5", b"a", b"a=", b"a=1 a=1", b"a=1 give", b"keep a=1", b"take")
        ),
        *((text, errno.EINVAL) for text in (b"nofail", b"nofail a=1 b=1", b"give a=+1", b"a=max", b"a= 1", b"a =1")),
        *((text, errno.ERANGE) for text in (b"a=8E", b"b=1 a=+9223372036854775808")),
        (b"a=" + b"1" * TEXT_MAX, errno.E2BIG),
    ],
)
def test_a_wrong_command_of_several_resources_is_an_error(text: bytes, number: int) -> None:
    with pytest.raises(OSError) as caught:
        parse_group_lease(text)
    assert caught.value.errno == number
