"""Feeds items: packs them into messages, and publishes each until the server has it."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pcluster import _cbor
from pcluster.client._model import ClientError, Fed, Item, TimedOut

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from pcluster.client._wire import Wire

#: The most items and bytes of one message.
ITEMS_MAX, BYTES_MAX = 256, 512 << 10
#: The part of the server's `max_payload` that headers need on an item's way.
RESERVE = 8 << 10
#: The most bytes of headers that return with results.
HEADERS_MAX = 4 << 10
TOPIC = re.compile("[A-Za-z0-9_-]{1,128}")
#: How long an item waits for others to travel with, in seconds.
LINGER = 0.02
#: The most bytes of an id.
ID_MAX = 1 << 10
#: Messages that are published at once.
WINDOW = 64
#: The error codes of a server that has no room at the moment: the queue is full, storage is, no server leads the stream.
NO_ROOM = {10077, 10002, 10023, 10047, 10008}
#: The pause before the same message is published again, in seconds: the first and the longest.
PAUSE, PAUSE_MAX = 0.01, 0.5
#: How long one publish waits for its answer, in seconds.
ANSWER = 2.0


@dataclass
class Message:
    """Items that travel together."""

    headers: dict[str, str]
    items: list[bytes] = field(default_factory=list)
    size: int = 0


def headers_of(item: Item) -> dict[str, str]:
    """Returns the headers of a message with this item."""
    headers = dict(item.headers or {})
    for name, value in headers.items():
        if name.lower().startswith(("nats-", "pcluster-")):
            raise ClientError(f"the header `{name}` cannot be fed: names that begin with `Nats-` or `Pcluster-` have a meaning")
        if not name or any(not "!" <= mark <= "~" or mark == ":" for mark in name) or "\r" in value or "\n" in value:
            raise ClientError(f"the header `{name}: {value}` cannot be sent: a name has no spaces or colons, a value is one line")
    if sum(len(name.encode()) + len(value.encode()) for name, value in headers.items()) > HEADERS_MAX:
        raise ClientError(f"the headers of an item have more than {HEADERS_MAX} bytes together")
    headers["Content-Type"] = "application/cbor-seq"
    if item.topic is not None:
        if not TOPIC.fullmatch(item.topic):
            raise ClientError(f"`{item.topic}` cannot be a topic: a topic is 1 to 128 letters, digits, `-` and `_`")
        headers["Pcluster-Topic"] = item.topic
    if item.id is not None:
        if not item.id or item.id.startswith("pcluster.") or len(item.id.encode()) > ID_MAX:
            raise ClientError(f"`{item.id}` cannot be an id: an id has 1 to {ID_MAX} bytes, and does not begin with `pcluster.`")
        if item.id != item.id.strip() or not item.id.isprintable():
            raise ClientError(f"`{item.id!r}` cannot be an id: it has line breaks, or spaces around it")
        headers["Nats-Msg-Id"] = item.id
    return headers


class Feeder:
    """Feeds one chain."""

    def __init__(self, wire: Wire, chain: str, *, pack: int, timeout: float | None) -> None:
        if not 1 <= pack <= ITEMS_MAX:
            raise ValueError(f"`pack` is how many items travel together: 1 to {ITEMS_MAX}")
        self.wire = wire
        self.chain = chain
        self.pack = pack
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.fed = Fed()
        self.size_max = wire.nats.max_payload - RESERVE
        self.running: set[asyncio.Task[None]] = set()
        self.open: Message | None = None
        self.timer: asyncio.TimerHandle | None = None

    async def add(self, item: Item) -> None:
        """Feeds an item, packed with others. An item with an id travels alone, so that it is known by its own."""
        data, headers = self.written(item.value), headers_of(item)
        if self.open is not None and (
            item.id is not None or headers != self.open.headers or self.open.size + len(data) > min(BYTES_MAX, self.size_max)
        ):
            self.send()
        if self.open is None:
            await self.sent(WINDOW - 1)
            self.open = Message(headers)
            self.timer = asyncio.get_running_loop().call_later(LINGER, self.send)
        self.open.items.append(data)
        self.open.size += len(data)
        if item.id is not None or len(self.open.items) == self.pack:
            self.send()

    def send(self) -> None:
        """Publishes what is packed."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.open is not None:
            message, self.open = self.open, None
            self.running.add(asyncio.create_task(self.publish(message)))

    async def finish(self) -> Fed:
        """Waits until the server has all items."""
        self.send()
        await self.sent(0)
        return self.fed

    def cancel(self) -> None:
        """Sends nothing more."""
        if self.timer is not None:
            self.timer.cancel()
        for task in self.running:
            task.cancel()

    def written(self, value: Any) -> bytes:
        try:
            data = _cbor.dumps(value)
        except (ValueError, TypeError) as error:
            raise ClientError(f"the item cannot be written: {error}") from error
        if len(data) > self.size_max:
            raise ClientError(
                f"the item has {len(data)} bytes, and a message of this server takes {self.size_max}; "
                f"`pcluster feed {self.chain}` feeds larger ones"
            )
        return data

    async def sent(self, left: int) -> None:
        """Waits until at most this many messages are on their way."""
        while len(self.running) > left:
            done, _ = await asyncio.wait(self.running, return_when=asyncio.FIRST_COMPLETED)
            self.running -= done
            for task in done:
                task.result()

    async def publish(self, message: Message) -> None:
        """Publishes until the server has the message: under one id, so that it is never there twice."""
        from nats.errors import NoRespondersError
        from nats.errors import TimeoutError as NoAnswer

        headers = {"Nats-Msg-Id": uuid.uuid4().hex, **message.headers}
        payload, pause = b"".join(message.items), PAUSE
        while True:
            try:
                answer = await self.wire.nats.request(f"pcluster.{self.chain}.in", payload, timeout=ANSWER, headers=headers)
                said = json.loads(answer.data)
            except NoRespondersError:
                await self.check_intake()
                said = {"error": {"err_code": 10008, "description": "nobody listens"}}
            except NoAnswer:
                said = {"error": {"err_code": 10008, "description": "the server does not answer"}}
            error = said.get("error")
            if error is None:
                if said.get("duplicate") and "Nats-Msg-Id" in message.headers:
                    self.fed.duplicates += len(message.items)
                else:
                    self.fed.items += len(message.items)
                return
            if error.get("err_code") not in NO_ROOM:
                raise ClientError(f"the server does not take an item of `{self.chain}`: {error.get('description')}")
            if self.deadline is not None and time.monotonic() + pause > self.deadline:
                raise TimedOut(f"`{self.chain}` has taken {self.fed.items} items, and no more in time: {error.get('description')}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)

    async def check_intake(self) -> None:
        """Raises if nobody will ever take an item."""
        if not (await self.wire.state(self.chain))["open"]:
            raise ClientError(f"the intake of `{self.chain}` is closed; `pcluster start {self.chain}` opens it")


async def iterated(items: AsyncIterable[Any] | Iterable[Any], given: Item) -> AsyncIterator[Item]:
    """Yields items. What `given` has counts for those that are no `Item`."""
    if hasattr(items, "__aiter__"):
        async for each in items:
            yield item_of(each, given)
        return
    for number, each in enumerate(items):
        yield item_of(each, given)
        if number % ITEMS_MAX == 0:
            # A loop over what is at hand would keep answers from being read.
            await asyncio.sleep(0)


def item_of(value: Any, given: Item) -> Item:
    return value if isinstance(value, Item) else Item(value, None, given.topic, given.headers)
