"""What CBOR has and Python's own types have not, and the other way round.

The driver of the sandbox and the codec of the worker share this file, so that values mean the same in both.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Tag:
    """A value with a CBOR tag that has no type in Python."""

    __slots__ = ("number", "value")

    def __init__(self, number: int, value: Any) -> None:
        self.number = number
        self.value = value

    def __repr__(self) -> str:
        return f"Tag({self.number!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tag) and (self.number, self.value) == (other.number, other.value)

    def __hash__(self) -> int:
        return hash((self.number, self.value))


class WithTopic:
    """An output with a topic of its own. `None` stands for no topic."""

    __slots__ = ("topic", "value")

    def __init__(self, topic: str | None, value: Any) -> None:
        self.topic = topic or ""
        self.value = value

    def __repr__(self) -> str:
        return f"WithTopic({self.topic or None!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WithTopic) and (self.topic, self.value) == (other.topic, other.value)

    __hash__ = None  # type: ignore[assignment]


class Null:
    """The type of `NULL`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NULL"


#: An output that is null. A task that returns `None` gives nothing; what it yields is an output, `None` too.
NULL = Null()


def tag(number: int, value: Any) -> Any:
    """Returns what a tag stands for."""
    read = READERS.get(number)
    return Tag(number, value) if read is None else read(value)


def expect(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what} is of type {type(value).__name__}, not {kind.__name__}")
    return value


def big(value: Any) -> int:
    return int.from_bytes(expect(value, bytes, "a large integer"), "big")


def decimal(value: Any) -> Any:
    if type(value) is not list or [type(part) for part in value] != [int, int]:
        raise ValueError("a decimal is not a pair of integers")
    from decimal import Decimal

    exponent, digits = value
    try:
        # Not by arithmetic, which rounds.
        return Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), exponent))
    except (ValueError, ArithmeticError, OverflowError):
        raise ValueError(f"a decimal with the exponent {exponent} or its digits is too large") from None


def digits(text: str, start: int, end: int) -> int:
    part = text[start:end]
    if len(part) != end - start or not (part.isascii() and part.isdigit()):
        raise ValueError("not of the form of RFC 3339")
    return int(part)


def time_text(value: Any) -> Any:
    """Reads RFC 3339."""
    from datetime import datetime, timedelta, timezone

    text = expect(value, str, "a time")
    try:
        if (text[4:5], text[7:8], text[10:11].upper(), text[13:14], text[16:17]) != ("-", "-", "T", ":", ":"):
            raise ValueError("not of the form of RFC 3339")
        rest, micros = text[19:], 0
        if rest.startswith("."):
            end = len(rest) - len(rest[1:].lstrip("0123456789"))
            fraction, rest = rest[1:end], rest[end:]
            if not fraction or fraction[6:].strip("0"):
                raise ValueError("it is finer than microseconds")
            micros = int(fraction[:6].ljust(6, "0"))
        zone = timezone.utc
        if rest not in ("Z", "z"):
            if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":":
                raise ValueError("it has no time zone")
            offset = timedelta(hours=digits(rest, 1, 3), minutes=digits(rest, 4, 6))
            zone = timezone(offset if rest[0] == "+" else -offset)
        places = ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
        return datetime(*(digits(text, *place) for place in places), micros, zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not a time that Python can hold: {text!r} ({error})") from None


def time_number(value: Any) -> Any:
    from datetime import datetime, timedelta, timezone

    if type(value) not in (int, float) or value != value:
        raise ValueError("a time is not a number of seconds")
    try:
        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=value)
    except OverflowError:
        raise ValueError(f"not a time that Python can hold: {value} seconds") from None
    if time.timestamp() != value:
        raise ValueError(f"not a time that Python can hold: {value!r} seconds (it is finer than microseconds)")
    return time


def date_text(value: Any) -> Any:
    from datetime import date

    text = expect(value, str, "a date")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"not a date that Python can hold: {text!r}") from None


def date_number(value: Any) -> Any:
    from datetime import date, timedelta

    days = expect(value, int, "a date")
    try:
        return date(1970, 1, 1) + timedelta(days=days)
    except OverflowError:
        raise ValueError(f"not a date that Python can hold: {days} days") from None


def uuid(value: Any) -> Any:
    from uuid import UUID

    if type(value) is not bytes or len(value) != 16:
        raise ValueError("a UUID is not 16 bytes")
    return UUID(bytes=value)


#: By the number of the tag.
READERS = {
    0: time_text,
    1: time_number,
    2: big,
    3: lambda value: -1 - big(value),
    4: decimal,
    37: uuid,
    100: date_number,
    1004: date_text,
    55799: lambda value: value,
}


def other(value: Any) -> list[Any] | tuple[int, Any]:
    """Returns what is written in place of an object: `[value]` of Python's own types, or `(tag, value)`."""
    kind = type(value)
    if kind is Tag:
        if type(value.number) is not int or not 0 <= value.number < 1 << 64:
            raise TypeError(f"{value.number!r} is not the number of a tag")
        return (value.number, value.value)
    if kind is Null:
        return [None]
    if kind is WithTopic:
        raise TypeError("only a whole output has a topic, not a part of it")
    # Subclasses, as of enumerations and named tuples.
    for base, plain in BASES:
        if isinstance(value, base):
            return [plain(value)]
    known = WRITERS.get((kind.__module__, kind.__name__))
    if known is not None:
        return known(value)
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        return [{name: getattr(value, name) for name in fields}]
    for method in ("model_dump", "dict"):
        # pydantic, of version 2 and 1.
        if hasattr(kind, "__fields__") and callable(getattr(value, method, None)):
            return [getattr(value, method)()]
    if hasattr(kind, "_value2member_map_"):
        return [value.value]
    raise TypeError(f"a value of type {kind.__qualname__} cannot be an output{HINTS.get(kind.__name__, '')}")


BASES = (
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    ((bytearray, memoryview), bytes),
    (dict, lambda value: dict(value.items())),
    (list, list),
    (tuple, tuple),
)


def written_time(value: Any) -> tuple[int, str]:
    if value.utcoffset() is None:
        raise TypeError("a datetime without a time zone cannot be an output; use datetime.now(timezone.utc)")
    if value.utcoffset().total_seconds() % 60:
        raise TypeError("a time zone with seconds cannot be an output")
    text = value.isoformat()
    return (0, text[:-6] + "Z" if text.endswith("+00:00") else text)


def written_decimal(value: Any) -> tuple[int, list[int]]:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or (sign and not any(digits)):
        raise TypeError(f"the decimal {value} cannot be an output")
    number = 0
    for digit in digits:
        number = number * 10 + digit
    return (4, [exponent, -number if sign else number])


#: By the name of the type, so that no module is imported for it.
WRITERS = {
    ("datetime", "datetime"): written_time,
    ("datetime", "date"): lambda value: (1004, value.isoformat()),
    ("decimal", "Decimal"): written_decimal,
    ("uuid", "UUID"): lambda value: (37, value.bytes),
}

HINTS = {
    "coroutine": "; a task is a plain function, which may call asyncio.run",
    "async_generator": "; a task is a plain function, which may call asyncio.run",
    "set": "; a set has no order: return a sorted list",
    "frozenset": "; a set has no order: return a sorted list",
    "generator": "; only the task itself may yield: make a list of it",
}
