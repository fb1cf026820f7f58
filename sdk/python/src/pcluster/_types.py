"""Reads values as the types that an author has annotated: classes of their own, and checks of Python's."""

from __future__ import annotations

import typing
from types import UnionType

from pcluster._errors import Permanent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Read = Callable[[Any], Any]


class Misfit(Exception):
    """A value is not of the type. `path` leads to the part that is not."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path

    def __str__(self) -> str:
        text = str(self.args[0])
        return f"{self.path.lstrip('.')}: {text}" if self.path else text

    def within(self, part: str) -> Misfit:
        return Misfit(self.args[0], part + self.path)


def hint(function: Callable[..., Any], parameter: str) -> tuple[Any, str]:
    """Returns the type of a parameter, and how its author wrote it."""
    try:
        found = typing.get_type_hints(function).get(parameter, typing.Any)
    except NameError as error:
        raise Permanent(f"a type of `{function.__name__}` is not known when it runs: {error}") from None
    return found, name_of(found)


def name_of(hint: Any) -> str:
    if hint is None or hint is type(None):
        return "None"
    if typing.get_origin(hint) is not None or isinstance(hint, UnionType):
        return str(hint).replace("typing.", "").replace("__main__.", "")
    return getattr(hint, "__name__", str(hint))


def reader(hint: Any) -> Read | None:
    """Returns what reads a value as a type. `None` if any value is as it should be."""
    if hint in (typing.Any, object) or isinstance(hint, typing.TypeVar):
        return None
    if hint is None or hint is type(None):
        return nothing
    simple = SIMPLE.get(hint) if isinstance(hint, type) and typing.get_origin(hint) is None else None
    if simple is not None:
        return simple
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return reader(arguments[0])
    if origin is typing.Union or origin is UnionType:
        return one_of(arguments, name_of(hint))
    if origin is typing.Literal:
        return literal(arguments)
    supertype = getattr(hint, "__supertype__", None)
    if supertype is not None:
        return reader(supertype)
    return container(origin or hint, arguments) or of_class(origin or hint)


def is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def refuse(value: Any, wanted: str) -> Misfit:
    kind = "None" if value is None else type(value).__name__
    return Misfit(f"{kind} instead of {wanted}")


def nothing(value: Any) -> None:
    if value is not None:
        raise refuse(value, "None")


def integer(value: Any) -> int:
    if is_a(int, value):
        return value
    # Equal numbers are equal: what comes of a language without integers may be 1.0.
    if is_a(float, value) and value.is_integer():
        return int(value)
    raise refuse(value, "int")


def number(value: Any) -> float:
    if is_a(float, value):
        return value
    if is_a(int, value):
        try:
            converted = float(value)
        except OverflowError:
            converted = None
        if converted != value:
            raise Misfit(f"a float cannot hold {value}")
        return converted
    raise refuse(value, "float")


def plain(kind: type) -> Read:
    def read(value: Any) -> Any:
        if is_a(kind, value):
            return value
        raise refuse(value, kind.__name__)

    return read


SIMPLE: dict[Any, Read] = {int: integer, float: number} | {kind: plain(kind) for kind in (bool, str, bytes, list, dict)}


def one_of(hints: tuple[Any, ...], wanted: str) -> Read | None:
    readers: list[Read] = []
    for each in hints:
        read_each = reader(each)
        if read_each is None:
            return None
        readers.append(read_each)
    # The value's own type first: 1 is an int where `float | int` is wanted.
    exact = {each: read for each, read in zip(hints, readers) if isinstance(each, type)}

    def read(value: Any) -> Any:
        own = exact.get(type(value))
        if own is not None:
            return own(value)
        misfits = []
        for read_each in readers:
            try:
                return read_each(value)
            except Misfit as misfit:
                misfits.append(misfit)
        # The one that came furthest says most.
        deepest = max(misfits, key=lambda misfit: len(misfit.path))
        raise deepest if deepest.path else refuse(value, wanted)

    return read


def literal(allowed: tuple[Any, ...]) -> Read:
    def read(value: Any) -> Any:
        for each in allowed:
            if type(each) is type(value) and each == value:
                return each
        raise Misfit(f"{value!r} is none of {', '.join(map(repr, allowed))}")

    return read


def container(kind: Any, arguments: tuple[Any, ...]) -> Read | None:
    import collections.abc as abc

    if kind in (list, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence):
        return listed(reader(arguments[0]) if arguments else None)
    if kind in (dict, abc.Mapping, abc.MutableMapping):
        return mapped(*(reader(each) for each in arguments)) if arguments else SIMPLE[dict]
    if kind is tuple:
        return tupled(arguments)
    return None


def listed(read: Read | None) -> Read:
    def all_of(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise refuse(value, "list")
        return value if read is None else [part(read, each, f"[{index}]") for index, each in enumerate(value)]

    return all_of


def part(read: Read | None, value: Any, path: str) -> Any:
    if read is None:
        return value
    try:
        return read(value)
    except Misfit as misfit:
        raise misfit.within(path) from None


def mapped(key: Read | None, value: Read | None) -> Read:
    def all_of(given: Any) -> Any:
        if not isinstance(given, dict):
            raise refuse(given, "dict")
        return {part(key, each, f"[{each!r}]"): part(value, inner, f"[{each!r}]") for each, inner in given.items()}

    return all_of


def tupled(arguments: tuple[Any, ...]) -> Read:
    if not arguments or arguments[-1] is Ellipsis:
        read_all = listed(reader(arguments[0]) if arguments else None)
        return lambda value: tuple(read_all(value))
    readers = [reader(each) for each in arguments]

    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise refuse(value, "tuple")
        if len(value) != len(readers):
            raise Misfit(f"{len(value)} values instead of {len(readers)}")
        return tuple(part(each, inner, f"[{index}]") for index, (each, inner) in enumerate(zip(readers, value)))

    return read


def of_class(kind: Any) -> Read:
    if hasattr(kind, "__dataclass_fields__"):
        return dataclass(kind)
    if hasattr(kind, "__required_keys__"):
        return typed_dict(kind)
    if hasattr(kind, "_field_defaults"):
        return named_tuple(kind)
    if hasattr(kind, "model_validate"):
        return validated(kind.model_validate, kind)
    if hasattr(kind, "parse_obj"):
        return validated(kind.parse_obj, kind)
    if hasattr(kind, "_value2member_map_"):
        return validated(kind, kind)
    convert = OF_TEXT.get((getattr(kind, "__module__", ""), getattr(kind, "__name__", "")))
    if convert is not None:
        return of_text(kind, convert)
    raise Permanent(f"`{name_of(kind)}` is no type that an item can have; leave the annotation out to get the value as it is")


def fields(kind: type, readers: dict[str, tuple[Read | None, bool]], more: bool) -> Callable[[Any], dict[str, Any]]:
    """Returns what reads the fields of a dict: the reader of each, and whether it may be left out. `more` keeps unknown ones."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise refuse(value, kind.__name__)
        found = dict(value) if more else {}
        for name, (each, is_optional) in readers.items():
            if name in value:
                found[name] = part(each, value[name], f".{name}")
            elif not is_optional:
                raise Misfit(f"the field `{name}` is missing")
        return found

    return read


def dataclass(kind: Any) -> Read:
    if kind in KNOWN:
        # A field of its own class.
        return lambda value: KNOWN[kind](value)
    from dataclasses import MISSING

    hints = typing.get_type_hints(kind)
    # Replaced below, once its fields are known.
    KNOWN[kind] = nothing
    readers: dict[str, tuple[Read | None, bool]] = {}
    for name, field in kind.__dataclass_fields__.items():
        if field.init and name in hints:
            is_optional = field.default is not MISSING or field.default_factory is not MISSING
            readers[name] = (reader(hints[name]), is_optional)
    read_fields = fields(kind, readers, more=False)

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        found = read_fields(value)
        try:
            return kind(**found)
        except (TypeError, ValueError) as error:
            raise Misfit(f"{type(error).__name__}: {error}") from error

    KNOWN[kind] = read
    return read


#: The readers of data classes that were met.
KNOWN: dict[Any, Read] = {}


def typed_dict(kind: Any) -> Read:
    required = kind.__required_keys__
    hints = typing.get_type_hints(kind)
    return fields(kind, {name: (reader(each), name not in required) for name, each in hints.items()}, more=True)


def named_tuple(kind: Any) -> Read:
    hints = typing.get_type_hints(kind)
    readers = {name: (reader(hints.get(name, typing.Any)), name in kind._field_defaults) for name in kind._fields}
    read_fields = fields(kind, readers, more=False)

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if not len(kind._fields) - len(kind._field_defaults) <= len(value) <= len(kind._fields):
                raise Misfit(f"{len(value)} values instead of {len(kind._fields)}")
            value = dict(zip(kind._fields, value))
        return kind(**read_fields(value))

    return read


def validated(validate: Read, kind: Any) -> Read:
    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        try:
            return validate(value)
        except (TypeError, ValueError) as error:
            raise Misfit(str(error)) from error

    return read


def within_micros(text: str) -> str:
    """Refuses a time finer than microseconds, which `fromisoformat` cuts."""
    fraction = text.partition(".")[2]
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    if digits[6:].strip("0"):
        raise ValueError("it is finer than microseconds")
    return text


#: Types that JSON has no form for: also read from text, as they are fed.
OF_TEXT = {
    ("datetime", "datetime"): lambda kind, text: kind.fromisoformat(within_micros(text).replace("Z", "+00:00")),
    ("datetime", "date"): lambda kind, text: kind.fromisoformat(text),
    ("decimal", "Decimal"): lambda kind, text: kind(text),
    ("uuid", "UUID"): lambda kind, text: kind(text),
}


def of_text(kind: Any, convert: Callable[[Any, str], Any]) -> Read:
    def read(value: Any) -> Any:
        if type(value) is kind:
            return value
        if is_a(int, value) and kind.__name__ == "Decimal":
            return kind(value)
        if not isinstance(value, str):
            raise refuse(value, kind.__name__)
        try:
            return convert(kind, value)
        except (ValueError, ArithmeticError) as error:
            why = ": it is finer than microseconds" if "finer" in str(error) else ""
            raise Misfit(f"{value!r} is no {kind.__name__}{why}") from None

    return read
