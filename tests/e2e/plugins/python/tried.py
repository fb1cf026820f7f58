"""Tasks that are tried from all sides by the end-to-end tests."""

import datetime
import importlib
import os
import random
import secrets
import time
import uuid

from pcluster import NULL, Permanent, Transient, context, log, task

MADE = {"random": random.random(), "time": time.time()}


@task
def same(item):
    """Returns its item."""
    return NULL if item is None else item


@task(examples=[1])
def chance(item):
    """Returns what must be another in each instance."""
    return {
        "random": random.random(),
        "uuid1": str(uuid.uuid1()),
        "uuid4": str(uuid.uuid4()),
        "secrets": secrets.token_hex(),
        "urandom": os.urandom(8).hex(),
        "now": datetime.datetime.now(datetime.timezone.utc).timestamp(),
        "monotonic": time.monotonic(),
        "made": MADE["random"],
        "made_at": MADE["time"],
    }


async def later(asyncio, number):
    await asyncio.sleep(0.001)
    return sum(await asyncio.gather(*(asyncio.sleep(0.001, each) for each in range(number))))


#: What of the standard library must work, by the module, which is imported when an item asks for it.
LIBRARY = {
    "asyncio": lambda asyncio: asyncio.run(later(asyncio, 4)),
    "collections": lambda collections: dict(collections.Counter("aab")),
    "datetime": lambda datetime: datetime.datetime(2026, 7, 1, tzinfo=datetime.timezone.utc).isoformat(),
    "decimal": lambda decimal: decimal.Decimal("0.1") + decimal.Decimal("0.2"),
    "hashlib": lambda hashlib: hashlib.sha256(b"x").hexdigest()[:8],
    "importlib.resources": lambda resources: resources.files("tried").joinpath("table.json").read_text(),
    "json": lambda json: json.loads(json.dumps({"a": [1.5, None]})),
    "re": lambda re: re.sub(r"\d+", "N", "a12b3"),
    "statistics": lambda statistics: statistics.mean([1, 3]),
    "time": lambda time: time.sleep(0.002),
}


@task
def library(name):
    """Returns what a module of the standard library does."""
    return [LIBRARY[name](importlib.import_module(name))]


@task
def say(item):
    """Writes to the log in each way."""
    import logging

    log.debug("by %s", "log")
    logging.getLogger("tried").warning("by logging")
    print("by print")
    return [context().chain, context().stage, context().attempt, context().config]


def price(item):
    try:
        return item["price"]
    except KeyError as error:
        raise LookupError("no price") from error


def deep(number):
    return deep(number + 1)


def nested():
    value = []
    for _ in range(1_000):
        value = [value]
    return value


def wait_forever():
    import asyncio

    asyncio.run(asyncio.Event().wait())


#: Ways to fail.
FAILURES = {
    "cause": lambda: price({}),
    "permanent": lambda: (_ for _ in ()).throw(Permanent("never")),
    "transient": lambda: (_ for _ in ()).throw(Transient("later", after=2)),
    "exit": lambda: __import__("sys").exit(3),
    "late": lambda: __import__("late"),
    "standard": lambda: __import__("curses"),
    "bz2": lambda: __import__("bz2").compress(b"a"),
    "lzma": lambda: __import__("lzma").decompress(b"a"),
    "os_exit": lambda: os._exit(3),
    "recursion": lambda: deep(0),
    "memory": lambda: len(bytearray(1 << 30)),
    "module": lambda: __import__("numpy"),
    "thread": lambda: __import__("threading").Thread(target=print).start(),
    "socket": lambda: __import__("socket").create_connection(("127.0.0.1", 80)),
    "open": lambda: open("/etc/passwd"),
    "process": lambda: __import__("subprocess").run(["ls"]),
    "set": lambda: {1, 2},
    "naive": lambda: datetime.datetime(2026, 1, 1),
    "surrogate": lambda: "\ud800",
    "nested": nested,
    "forever": wait_forever,
}


@task
def fail(name):
    """Fails in a way of its own."""
    print("half a line", end="")
    return FAILURES[name]()


@task
def typed(item: int) -> int:
    """Takes integers alone."""
    return item + 1


def load(config):
    if "word" not in config:
        raise Permanent("no word to give")
    return config["word"]


@task(init=load)
def word(item, made: str):
    """Returns what was made of the config."""
    return made
