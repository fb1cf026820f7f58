"""Tasks in Python with packages that others wrote, with calls, and with recursion in C."""

import copy
import functools
import json
import pickle
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from dateutil.parser import parse
from dateutil.relativedelta import relativedelta
from dateutil.rrule import DAILY, rrule
from pydantic import BaseModel
from pydantic import ValidationError as Invalid

from pcluster import CallError, http, kv, objects, publish, secrets, task


class User(BaseModel):
    id: int
    name = "John Doe"
    signup_ts: datetime | None = None
    friends: list[int] = []


def invalid():
    try:
        User(signup_ts="broken", friends=[1, 2, "not number"])
    except Invalid as error:
        return [list(each["loc"]) for each in error.errors()]


NOW = parse("Wed Sep 17 20:54:47.282310 2003")
DAY = datetime(2020, 10, 31, 12, tzinfo=ZoneInfo("America/Los_Angeles"))

#: What the pages of these packages show, by a name.
SHOWN = {
    "pydantic": lambda: User(id="123", signup_ts="2019-06-01 12:22", friends=[1, "2", b"3"]).json(),
    "pydantic, wrong": invalid,
    "dateutil.parser": lambda: str(parse("Thu Sep 25 10:36:28 2003")),
    "dateutil.relativedelta": lambda: str(NOW + relativedelta(months=+1, weeks=+1, hour=10)),
    "dateutil.rrule": lambda: [day.day for day in rrule(DAILY, count=3, dtstart=parse("19970902T090000"))],
    "zoneinfo": lambda: [str(DAY), str(DAY + timedelta(days=1)), DAY.tzname(), (DAY + timedelta(days=1)).tzname()],
}


@task
def shown(name):
    """Returns what an example of a package returns."""
    return SHOWN[name]()


def read():
    from pages import PAGES

    return PAGES


@task(init=read)
def page(name, pages):
    """Returns what another example of a package returns. Its packages are imported for this task alone."""
    return pages[name]()


class Order(BaseModel):
    id: str
    count: int = 1


@task(examples=[{"id": "example"}])
def checked(order: Order) -> Order:
    """Takes and returns a model."""
    return Order(id=order.id.upper(), count=order.count + 1)


@task(calls=["http", "kv", "objects", "publish", "secrets"])
def reach(item):
    """Calls the node in each way."""
    cache = kv.Bucket("cache")
    before = cache.get("rate")
    answer = http.get(item["url"], headers={"Authorization": http.Secret("api_token").bearer()}).raise_for_status()
    cache.put("rate", answer.body)
    store = objects.Store("models")
    store.put("copy", answer.body)
    publish.publish("alerts.rates", b"changed")
    denied = []
    for call in (lambda: kv.Bucket("other").get("rate"), lambda: secrets.reveal("api_token")):
        try:
            call()
        except CallError as error:
            denied.append(error.kind)
    return {
        "before": before,
        "status": answer.status,
        "cached": cache.get("rate").text,
        "stored": store.get("copy").data.decode(),
        "denied": denied,
    }


def nested(depth, wrap):
    value = wrap(None)
    for _ in range(depth):
        value = wrap(value)
    return value


DEPTH = 50_000


def lists():
    return nested(DEPTH, lambda value: [value])


class Asked:
    """Recursion between C and Python, in many ways."""

    def __getattr__(self, name):
        return getattr(self, name + "x")

    def __eq__(self, other):
        return other == self

    def __repr__(self):
        return repr([self])

    def __hash__(self):
        return hash((self,))

    def __call__(self):
        return functools.partial(self)()

    def __lt__(self, other):
        return sorted([self, self]) == []


#: Recursion in C code that ends before the stack of the sandbox does.
RECURSION = {
    "json.loads": lambda: json.loads("[" * DEPTH),
    "json.loads of objects": lambda: json.loads('{"a":' * DEPTH),
    "json.dumps": lambda: json.dumps(lists()),
    "repr": lambda: repr(lists()),
    "repr of dicts": lambda: repr(nested(DEPTH, lambda value: {"a": value})),
    "repr of tuples": lambda: repr(nested(DEPTH, lambda value: (value,))),
    "deepcopy": lambda: copy.deepcopy(lists()),
    "pickle": lambda: pickle.dumps(lists()),
    "equal": lambda: lists() == lists(),
    "hash": lambda: hash(nested(DEPTH, lambda value: (value,))),
    "less": lambda: lists() < lists(),
    "compile": lambda: compile("-" * DEPTH + "1", "text", "eval"),
    "eval": lambda: eval("+".join(["1"] * DEPTH)),
    "isinstance": lambda: isinstance(1, nested(DEPTH, lambda value: (value or str,))),
    "getattr": lambda: Asked().name,
    "own equal": lambda: Asked() == Asked(),
    "own repr": lambda: repr(Asked()),
    "own hash": lambda: hash(Asked()),
    "own call": lambda: Asked()(),
    "own sort": lambda: sorted([Asked(), Asked()]),
    "map": lambda: next(nested(DEPTH, lambda value: map(str, value or [1]))),
    "filter": lambda: next(nested(DEPTH, lambda value: filter(None, value or [1]))),
    "reduce": lambda: functools.reduce(deeper, [0, 0]),
    "class": lambda: type("Deep", (), {"__instancecheck__": None, "__getattribute__": lambda self, name: getattr(self, name)})().x,
}


def deeper(one, other):
    return functools.reduce(deeper, [one, other])


@task
def recurse(name):
    """Goes deeper than any stack is."""
    RECURSION.get(name, lambda: None)()
    return "it ended"


@task
def drop(depth):
    """Makes and drops values that are nested deeply."""
    for wrap in (lambda value: [value], lambda value: (value,), lambda value: {"a": value}):
        value = nested(depth, wrap)
        del value
    return "dropped"


SEEN = []


@task
def count(item):
    """Makes garbage, with circles in it. Returns how many items the instance has had."""
    circle = {"item": item, "text": str(item) * 10}
    circle["self"] = [circle, json.loads(json.dumps([item] * 5))]
    SEEN[:] = [SEEN[0] + 1 if SEEN else 1]
    return SEEN[0]
