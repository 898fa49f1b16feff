from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.numbers import Number, read_number

READ = [
    ("42.", 42), ("\u22125", -5), ("- 5", -5), ("minus 5", -5), ("+5", 5), ("(5)", 5), ("**5**", 5), ("x = -5", -5), ("$5$", 5),
    ("\u00bd", Fraction(1, 2)), ("1\u00bd", Fraction(3, 2)), ("-1 1/2", Fraction(-3, 2)), (r"\frac{1}{2}", Fraction(1, 2)),
    (r"\boxed{42}", 42), ("3,14", Fraction(314, 100)), (".5", Fraction(1, 2)), ("0,125", Fraction(1, 8)),
    ("1,200", 1200), ("1 200", 1200), ("1\u202f200", 1200), ("1'200", 1200), ("1.200", Fraction(6, 5)), ("1.200.000", 1200000),
    ("1.200,50", Fraction(2401, 2)), ("12,34,567", 1234567), ("1_000", 1000), ("\u0664\u0662", 42), ("\uff14\uff12", 42), ("\u0967\u0968", 12),
    ("5%", Fraction(1, 20)), ("5 per cent", Fraction(1, 20)), ("5 percent", Fraction(1, 20)), ("5\u2030", Fraction(1, 200)),
    ("1e5", 100000), ("1E-5", Fraction(1, 100000)), ("1e\u22125", Fraction(1, 100000)), ("1.5\u00d710\u00b3", 1500), ("1.5 x 10^3", 1500),
    ("10\u207b\u00b3", Fraction(1, 1000)), ("2^10", 1024), ("5 million", 5000000), ("3 dozen", 36), ("007", 7),
]  # fmt: skip
UNITS = [
    ("5 km", 5, "km"), ("5km", 5, "km"), ("$1,200", 1200, "$"), ("-$5", -5, "$"), ("$-5", -5, "$"), ("5 \u20ac", 5, "\u20ac"),
    ("5 apples", 5, "apple"), ("5 apple", 5, "apple"), ("25\u2103", 25, "\u00b0C"), ("25 \u00b0C", 25, "\u00b0C"), ("5 m\u00b2", 5, "m^2"),
    ("5 km/h", 5, "km/h"), ("5 Mm", 5, "Mm"), ("5 mm", 5, "mm"), ("5 million dollars", 5000000, "dollar"),
]  # fmt: skip
NONE = [
    "", "?", "five", "3 or 4", "3 and 4", "3-4", "3 4", "2024-05-01", "12:30", "1.2.3", "1/2/3", "1/0", "0^-1", "about 5", "5 out of 6",
    "inf", "nan", "1e999", "9^9^9", "e5", "5'", "1,2,3", "192.168.0.1", "5;6", "It is 5.", "5" * 300,
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ, ids=ascii)
def test_numbers(text, value):
    assert read_number(text) == Number(Fraction(value))


@pytest.mark.parametrize(("text", "value", "unit"), UNITS, ids=ascii)
def test_numbers_with_a_unit(text, value, unit):
    assert read_number(text) == Number(Fraction(value), unit)


@pytest.mark.parametrize("text", NONE, ids=lambda text: ascii(text)[:20])
def test_what_is_no_number(text):
    assert read_number(text) is None


@given(
    st.one_of(
        st.integers(),
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=3),
    )
)
def test_a_number_is_read_as_it_was_written(number):
    if len(str(number)) < 100:
        assert read_number(str(number)) == Number(Fraction(str(number)))
    if isinstance(number, Decimal):
        # A thousandth needs a whole part to be told from thousands: 1,200.500.
        assert read_number(format(number, ",f")) == Number(Fraction(str(number)))


@given(st.fractions(max_denominator=1000))
def test_a_fraction_is_read_as_it_was_written(value):
    assert read_number(str(value)) == Number(value)


@given(st.text(max_size=40))
def test_no_text_fails(text):
    read_number(text)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_what_python_prints_is_read(value):
    assert read_number(repr(value)) == Number(Fraction(repr(value)))


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [("5 km", "5", True), ("5", "5 km", True), ("5 km", "5 m", False), ("$5", "\u20ac5", False), ("5.1", "5", False)],
)
def test_units_must_agree_where_both_have_one(one, other, near):
    assert read_number(one).is_near(read_number(other)) == near
