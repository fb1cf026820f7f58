"""Schemas of tasks by their annotations: a table of types, and classes of several files."""

import unittest

from pcluster import build

TEXT, NUMBER, INTEGER, NULL = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "null"}
LAX = {"type": ["string", "number", "boolean"], "x-untold": "pydantic converts some values"}
LAX_INTEGER = {"anyOf": [INTEGER, LAX]}
HEAD = """
import typing as t
import datetime, decimal, uuid
from dataclasses import dataclass, field
from enum import Enum
from typing import *
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Optional, Sequence, TypedDict, Union
from pydantic import BaseModel, Field, validator
from pcluster import task
from pkg.models import Order

class Level(str, Enum):
    low = "low"
    high = "high"

@dataclass
class Line:
    total: float
    note: Optional[str] = None
    tags: list[str] = field(default_factory=list)

class Row(TypedDict):
    a: int
    b: NotRequired[str]

class Pair(NamedTuple):
    a: int
    b: str

class Model(BaseModel):
    n: int
    m: Optional[str]

class Renamed(BaseModel):
    n: int = Field(alias="N")

class Noted(Enum):
    low: str = "low"
    high = "high"
    _order = "low high"

class Lenient(Enum):
    low = "low"

    @classmethod
    def _missing_(cls, value): ...

class Deep(BaseModel):
    lines: Optional[list[int]]
    names: dict[str, int]
    pair: tuple[int, str]

class Root(BaseModel):
    __root__: list[int]

class Camel(BaseModel):
    total_sum: int

    class Config:
        alias_generator = str.title

class Prepared(BaseModel):
    parts: list[int]

    @validator("parts", pre=True)
    def split(cls, value): ...

class Forbidding(BaseModel):
    n: int

    class Config:
        extra = "forbid"

class Plain:
    a: int

@dataclass
class Tree:
    below: list["Tree"]

Id = NewType("Id", int)
Lines = list[Line]
Maybe = int | None
"""
MODELS = """
from .base import Base
from dataclasses import dataclass

@dataclass
class Order(Base):
    id: int
"""
BASE = "from dataclasses import dataclass as data\n\n@data\nclass Base:\n    name: bytes\n"


def record(required, **properties):
    return {"type": "object", "properties": properties, "required": required}


LINE = {"total": NUMBER, "note": {"anyOf": [TEXT, NULL]}, "tags": {"type": "array", "items": TEXT}}
TREE = record(["below"], below={"type": "array", "items": {"$ref": "#/$defs/Tree"}})
#: A type, what a task takes with it, and what one gives if that differs. `None` for nothing.
TABLE = [
    ("int", INTEGER),
    ("float", NUMBER),
    ("str", TEXT),
    ("bool", {"type": "boolean"}),
    ("bytes", {"type": "string", "contentEncoding": "base64"}),
    ("datetime.datetime", {"type": "string", "format": "date-time"}),
    ("datetime.date", {"type": "string", "format": "date"}),
    ("uuid.UUID", {"type": "string", "format": "uuid"}),
    ("decimal.Decimal", {"type": ["number", "string"]}, NUMBER),
    ("Any", None),
    ("Unknown", None),
    ("Plain", None),
    ("Renamed", None),
    ("list[str]", {"type": "array", "items": TEXT}),
    ("t.Sequence[int]", {"type": "array", "items": INTEGER}),
    ("list", {"type": "array"}, {"type": "array", "items": {"x-untold": "list"}}),
    ("dict", {"type": "object"}, {"type": "object", "x-untold": "dict"}),
    ("dict[str, int]", {"type": "object", "additionalProperties": INTEGER}, {"type": "object", "additionalProperties": INTEGER, "x-untold": "which keys it has"}),
    ("dict[int, int]", None),
    ("tuple[int, str]", {"type": "array", "prefixItems": [INTEGER, TEXT], "items": False, "minItems": 2}),
    ("tuple[int, ...]", {"type": "array", "items": INTEGER}),
    ("Union[int, str]", {"anyOf": [INTEGER, TEXT]}),
    ("int | str", {"anyOf": [INTEGER, TEXT]}),
    ("'int | str'", {"anyOf": [INTEGER, TEXT]}),
    ("Union[int, Any]", None, {"anyOf": [INTEGER, {"x-untold": "Any"}]}),
    ("Literal['a', 1]", {"enum": ["a", 1]}),
    ("Annotated[int, 'a note']", INTEGER),
    ("Level", {"enum": ["low", "high"]}),
    ("Noted", {"enum": ["low", "high"]}),
    ("Lenient", None),
    ("Root", None),
    ("Camel", None),
    ("Prepared", None, record(["parts"], parts={"type": "array", "items": INTEGER})),
    ("Forbidding", record(["n"], n=LAX_INTEGER), record(["n"], n=INTEGER)),
    (
        "Deep",
        record(
            ["names", "pair"],
            lines={"anyOf": [{"type": "array", "items": LAX_INTEGER}, NULL, LAX]},
            names={"type": "object", "additionalProperties": LAX_INTEGER},
            pair={"type": "array", "prefixItems": [LAX_INTEGER, {"anyOf": [TEXT, LAX]}], "items": False, "minItems": 2},
        ),
        record(
            ["lines", "names", "pair"],
            lines={"anyOf": [{"type": "array", "items": INTEGER}, NULL]},
            names={"type": "object", "additionalProperties": INTEGER, "x-untold": "which keys it has"},
            pair={"type": "array", "prefixItems": [INTEGER, TEXT], "items": False, "minItems": 2},
        ),
    ),
    ("Id", INTEGER),
    ("Lines", {"type": "array", "items": record(["total"], **LINE)}, {"type": "array", "items": record(["total", "note", "tags"], **LINE)}),
    ("Row", record(["a"], a=INTEGER, b=TEXT)),
    ("Pair", None, {"type": "array", "prefixItems": [INTEGER, TEXT], "items": False, "minItems": 2}),
    ("Order", record(["name", "id"], name={"type": "string", "contentEncoding": "base64"}, id=INTEGER)),
    ("Tree", {"$ref": "#/$defs/Tree", "$defs": {"Tree": TREE}}),
    (
        "Model",
        record(["n"], n={"anyOf": [INTEGER, LAX]}, m={"anyOf": [TEXT, NULL, LAX]}),
        record(["n", "m"], n=INTEGER, m={"anyOf": [TEXT, NULL]}),
    ),
]  # fmt: skip


def schema(function):
    """Returns the schemas of the task of a file that ends in a function."""
    files = {"a.py": HEAD + "\n@task\n" + function, "pkg/__init__.py": "", "pkg/models.py": MODELS, "pkg/base.py": BASE}
    (found,) = build.find_tasks({path: text.encode() for path, text in files.items()}, [])
    return found.description.get("schema", {})


class Schemas(unittest.TestCase):
    def test_each_type_has_its_schema(self):
        for text, takes, *gives in TABLE:
            with self.subTest(text):
                found = schema(f"def f(item: {text}) -> {text}: ...\n")
                self.assertEqual(found.get("input"), takes)
                self.assertEqual(found.get("output"), gives[0] if gives else takes)

    def test_of_what_a_task_gives_it_is_one_output(self):
        for function, gives in [
            ("def f(item) -> int | None: ...", INTEGER),
            ("def f(item) -> Optional[int]: ...", INTEGER),
            ("def f(item) -> 'Optional[int]': ...", INTEGER),
            ("def f(item) -> Union[int, None]: ...", INTEGER),
            ("def f(item) -> Union[int, str, None]: ...", {"anyOf": [INTEGER, TEXT]}),
            ("def f(item) -> Maybe: ...", INTEGER),
            ("def f(item) -> Annotated[Maybe, 'a note']: ...", INTEGER),
            ("def f(item) -> Literal['a', None]: ...", {"enum": ["a"]}),
            ("def f(item) -> Iterator[int | None]:\n    yield 1", {"anyOf": [INTEGER, NULL]}),
            ("def f(item) -> None: ...", None),
            ("def f(item): ...", None),
            ("def f(item) -> t.Iterator[int]:\n    yield 1", INTEGER),
            ("def f(item) -> t.Generator[int, None, None]:\n    yield 1", INTEGER),
        ]:
            with self.subTest(function):
                self.assertEqual(schema(function + "\n").get("output"), gives)

    def test_a_name_that_may_be_several_is_left_open(self):
        several = "class Twice:\n    a: int\n\nif True:\n    class Twice:\n        b: int\n"
        files = {"a.py": f"from pcluster import task\n{several}\n@task\ndef f(item: Twice): ...\n".encode()}
        (found,) = build.find_tasks(files, [])
        self.assertNotIn("schema", found.description)


if __name__ == "__main__":
    unittest.main()
