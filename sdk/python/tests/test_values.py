"""What becomes of Python's own types as outputs."""

import unittest
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

from pcluster import NULL, Tag, WithTopic, _cbor, _values


@dataclass
class Point:
    x: int
    y: "Point | None" = None


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


Pair = namedtuple("Pair", "left right")


class Values(unittest.TestCase):
    def test_types_of_python_are_written_as_what_they_stand_for(self):
        for value, meaning in [
            (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
            (Color.RED, "red"),
            (Level.HIGH, 3),
            (Pair(1, "b"), [1, "b"]),
            ((1, (2,)), [1, [2]]),
            (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
            (bytearray(b"ab"), b"ab"),
            (NULL, None),
            (Tag(999, [1]), Tag(999, [1])),
            (True, True),
            ({None: 1, 2.5: 2}, {None: 1, 2.5: 2}),
        ]:
            with self.subTest(value=value):
                read = _cbor.loads(_cbor.dumps(value))
                self.assertEqual((read, type(read)), (meaning, type(meaning)))

    def test_times_and_numbers_come_back_as_they_were(self):
        zone = timezone(timedelta(hours=5, minutes=30))
        for value in [
            datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc),
            datetime(2026, 7, 1, tzinfo=zone),
            date(2026, 2, 28),
            Decimal("12345678901234567890.1234567890123456789"),
            Decimal("-0.5"),
            UUID(int=7),
        ]:
            with self.subTest(value=value):
                self.assertEqual(_cbor.loads(_cbor.dumps(value)), value)

    def test_a_number_of_seconds_is_a_time_if_python_can_hold_it(self):
        self.assertEqual(_values.time_number(1.25), datetime(1970, 1, 1, 0, 0, 1, 250_000, timezone.utc))
        self.assertEqual(_values.time_number(1_700_000_000.123456).microsecond, 123_456)
        with self.assertRaisesRegex(ValueError, "finer than microseconds"):
            _values.time_number(20.1234567)

    def test_what_has_no_form_is_refused_with_advice(self):
        async def late():
            pass

        coroutine = late()
        self.addCleanup(coroutine.close)
        for value, says in [
            (object(), "a value of type object cannot be an output"),
            ({1, 2}, "return a sorted list"),
            (coroutine, "a plain function"),
            (datetime(2026, 1, 2), "without a time zone"),
            (Decimal("NaN"), "the decimal NaN"),
            (Decimal("-0"), "the decimal -0"),
            ([WithTopic("a", 1)], "only a whole output has a topic"),
            (Tag(-1, 0), "-1 is not the number of a tag"),
            ("\ud800", "surrogates not allowed"),
        ]:
            with self.subTest(value=value), self.assertRaisesRegex((TypeError, ValueError), says):
                _cbor.dumps(value)
        endless = []
        endless.append(endless)
        with self.assertRaisesRegex(ValueError, "nested too deeply"):
            _cbor.dumps(endless)
