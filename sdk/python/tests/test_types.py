"""Items as the types that authors annotate."""

import typing
import unittest
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, NamedTuple, TypedDict

from pcluster import Mismatch, Permanent, _task, _types


class Size(Enum):
    SMALL = "s"


@dataclass
class Line:
    article: str
    count: int = 1


@dataclass
class Order:
    id: str
    lines: list[Line]
    size: Size = Size.SMALL
    notes: dict[str, str] = field(default_factory=dict)
    parent: "Order | None" = None


class Person(TypedDict):
    name: str


class Member(Person, total=False):
    age: int


class Point(NamedTuple):
    x: float
    y: float = 0.0


def read(hint, value):
    found = _types.reader(hint)
    return value if found is None else found(value)


class Types(unittest.TestCase):
    def test_values_are_read_as_types(self):
        line = {"article": "tea", "count": 2, "unknown": True}
        order = {"id": "1", "lines": [line], "size": "s", "parent": {"id": "0", "lines": []}}
        for hint, value, meaning in [
            (Any, object, object),
            (int, 2.0, 2),
            (float, 2, 2.0),
            (Order, order, Order("1", [Line("tea", 2)], parent=Order("0", []))),
            (Member, {"name": "Ada", "more": 1}, {"name": "Ada", "more": 1}),
            (Point, [1], Point(1.0)),
            (Point, {"x": 1, "y": 2.5}, Point(1.0, 2.5)),
            (list[int], [1, 2.0], [1, 2]),
            (dict[str, Line], {"a": {"article": "b"}}, {"a": Line("b")}),
            (tuple[int, str], [1, "a"], (1, "a")),
            (tuple[int, ...], [1, 2], (1, 2)),
            (typing.Optional[int], None, None),
            (int | float, 1.5, 1.5),
            (float | int, 1, 1),
            (Literal["a", 1], 1, 1),
            (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
            (Decimal, "1.10", Decimal("1.10")),
            (typing.Annotated[int, "a"], 1, 1),
        ]:
            with self.subTest(hint=hint):
                found = read(hint, value)
                self.assertEqual((found, type(found)), (meaning, type(meaning)))

    def test_what_does_not_fit_is_told_with_its_place(self):
        for hint, value, says in [
            (int, "1", "str instead of int"),
            (int, True, "bool instead of int"),
            (int, 1.5, "float instead of int"),
            (float, 2**53 + 1, "a float cannot hold 9007199254740993"),
            (str, None, "None instead of str"),
            (Order, {"id": "1"}, "the field `lines` is missing"),
            (Order, {"id": "1", "lines": [{"article": 1}]}, "lines[0].article: int instead of str"),
            (Order | None, {"id": "1", "lines": [{"article": 1}]}, "lines[0].article: int instead of str"),
            (Order, [], "list instead of Order"),
            (Order, {"id": "1", "lines": [], "size": "x"}, "size: 'x' is not a valid Size"),
            (Member, {}, "the field `name` is missing"),
            (list[int], ["a"], "[0]: str instead of int"),
            (tuple[int, str], [1], "1 values instead of 2"),
            (Literal["a"], "b", "'b' is none of 'a'"),
            (int | None, "1", "str instead of int | None"),
            (datetime, "today", "'today' is no datetime"),
            (datetime, "2026-01-02T03:04:05.1234567Z", "'2026-01-02T03:04:05.1234567Z' is no datetime: it is finer than microseconds"),
        ]:
            with self.subTest(hint=hint), self.assertRaises(_types.Misfit) as refused:
                read(hint, value)
            self.assertEqual(str(refused.exception), says)

    def test_a_type_that_no_item_can_have_is_refused_when_the_task_is_loaded(self):
        def task(item: set[int]):
            pass

        with self.assertRaisesRegex(Permanent, "is no type that an item can have"):
            _task.Task(task, None, ()).bind({})

    def test_the_state_is_made_of_the_config_and_the_item_is_checked(self):
        def load(config: Line):
            return config.article * config.count

        def task(item: int, state):
            return state + str(item)

        made = _task.Task(task, load, ()).bind({"article": "ab", "count": 2})
        self.assertEqual(made(1), "abab1")
        with self.assertRaisesRegex(Mismatch, "^the item is not of type `int`: str instead of int$"):
            made("1")
        with self.assertRaisesRegex(Mismatch, "the stage's `config` is not of type `Line`: the field `article` is missing"):
            _task.Task(task, load, ()).bind({})
