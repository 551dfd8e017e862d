"""fsmount.parse_quantity() and format_quantity(): amounts as text, for programs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsmount
from fsmount import UNLIMITED, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("12G", 12 << 30),
        ("0", 0),
        (" 4k\n", 4096),
        ("0x10", 16),
        (b"2m", 2 << 20),
        ("7E", 7 << 60),
        ("max", UNLIMITED),
        (str(UNLIMITED), UNLIMITED),
    ],
)
def test_a_text_is_the_same_amount_as_in_a_file(text: str | bytes, amount: int) -> None:
    assert parse_quantity(text) == amount


@pytest.mark.parametrize("text", ["", " ", "-1", "+5", "1.5G", "4kB", "1e6", "12 13", "010", "G", "x" * 5000, "٣"])
def test_a_text_that_is_no_amount_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["8E", "9223372036854775808", "9" * 100, "0x8000000000000000"])
def test_a_text_above_the_largest_amount_is_an_overflow_error(text: str) -> None:
    with pytest.raises(OverflowError, match="above 9223372036854775807"):
        parse_quantity(text)


@pytest.mark.parametrize("value", [12, None, 1.5, bytearray(b"1")])
def test_only_text_is_parsed(value: object) -> None:
    with pytest.raises(TypeError):
        parse_quantity(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (12 << 30, "12G"),
        (0, "0"),
        (1023, "1023"),
        (4096, "4K"),
        (1536 << 20, "1536M"),
        ((12 << 30) + 1, "12884901889"),
        (7 << 60, "7E"),
        (UNLIMITED, "max"),
    ],
)
def test_an_amount_has_the_shortest_exact_text(amount: int, text: str) -> None:
    assert format_quantity(amount) == text


@given(st.integers(0, UNLIMITED) | st.builds(lambda n, shift: n << shift, st.integers(0, 1023), st.integers(0, 53)))
def test_the_text_of_an_amount_is_parsed_to_the_same_amount(amount: int) -> None:
    assert parse_quantity(format_quantity(amount)) == amount


@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, ValueError), (1 << 63, OverflowError), (True, TypeError), (1.0, TypeError), ("1", TypeError)],
)
def test_an_invalid_amount_has_no_text(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        format_quantity(value)  # type: ignore[arg-type]


def test_the_package_has_its_version() -> None:
    assert fsmount.__version__.count(".") == 2
