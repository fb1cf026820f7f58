"""Takes results: each goes to one puller, and to the next one unless it is confirmed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from pcluster import _cbor
from pcluster.client import _wire
from pcluster.client._model import ClientError, NotFound, Result
from pcluster.client._wire import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError, header

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from pcluster.client._wire import Wire

log = logging.getLogger("pcluster.client")

#: The most messages of one request.
BATCH = 256
#: How long the server keeps a request that it has nothing for, in seconds.
EXPIRES = 2.0
#: How often to look whether the chain is drained, in seconds.
LOOK = 0.1
#: How often to tell the server that a message is still in use, in seconds. It waits 30.
ALIVE = 10.0
#: How long to wait for an answer of the server, in seconds.
ANSWER = 5.0
#: How the server ends a request for which it has nothing.
NOTHING_MORE = ("404", "408")
#: The headers that stay with their message when results of it are put back in another.
KEPT_BEHIND = {"pcluster-index", "pcluster-covers", "pcluster-again", "nats-msg-id", "pcluster-large"}


class Taken:
    """A message whose results are handed out one by one."""

    def __init__(self, message: Msg) -> None:
        self.message = message
        self.parts = _wire.sequence(message.data)
        self.index = _wire.positions(header(message.headers, "Pcluster-Index"), len(self.parts))
        large = header(message.headers, "Pcluster-Large")
        self.large = set(_wire.positions(large, 0)) if large else set()
        #: How many results the caller has for good.
        self.done = 0

    def result(self, value: Any) -> Result:
        """Returns the next result, with this value."""
        headers = self.message.headers
        fed = _wire.fed_id(header(headers, "Pcluster-Id"))
        return Result(
            value=value,
            id=_wire.item_id(fed, self.index[self.done]),
            topic=header(headers, "Pcluster-Topic") or None,
            version=header(headers, "Pcluster-Version"),
            revision=int(header(headers, "Pcluster-Revision", "0")),
            node=header(headers, "Pcluster-Node"),
            headers=_wire.foreign(headers),
        )


class Puller:
    """Takes results of one chain."""

    def __init__(self, wire: Wire, chain: str, topic: str | None, limit: int | None) -> None:
        self.wire = wire
        self.chain = chain
        self.stream = f"PCLUSTER_{chain}_OUT"
        self.consumer = f"topic_{topic}" if topic else "pull"
        self.again = f"pcluster.{chain}.out.{topic}.again" if topic else f"pcluster.{chain}.out"
        self.left = limit
        self.largest = 1
        self.ahead: deque[Taken] = deque()
        self.subscription: Subscription | None = None
        self.arrived: asyncio.Queue[Msg] = asyncio.Queue()
        #: How many messages the request that is open may still bring, and until when.
        self.requested = 0
        self.requested_until = 0.0
        self.alive: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribes to an inbox for results."""
        await self.wire.state(self.chain)
        if self.consumer.startswith("topic_"):
            await self.create_consumer(self.consumer.removeprefix("topic_"))

        async def arrived(message: Msg) -> None:
            self.arrived.put_nowait(message)

        self.subscription = await self.wire.nats.subscribe(self.wire.nats.new_inbox(), cb=arrived)
        self.alive = asyncio.create_task(self.keep())

    async def create_consumer(self, topic: str) -> None:
        """Makes the consumer of a topic, unless it is there. It has the settings of `pull`."""
        config = (await self.state("pull"))["config"]
        subject = f"pcluster.{self.chain}.out.{topic}"
        config = {key: value for key, value in config.items() if not key.startswith("filter_subject")}
        config |= {
            "name": self.consumer,
            "durable_name": self.consumer,
            "filter_subjects": [subject, f"{subject}.again"],
            "inactive_threshold": 24 * 3600 * 10**9,
        }
        await self.wire.api(
            f"CONSUMER.DURABLE.CREATE.{self.stream}.{self.consumer}", {"stream_name": self.stream, "config": config}
        )

    async def state(self, consumer: str) -> dict[str, Any]:
        try:
            return await self.wire.api(f"CONSUMER.INFO.{self.stream}.{consumer}")
        except ApiError as error:
            if error.code in (STREAM_NOT_FOUND, CONSUMER_NOT_FOUND):
                raise NotFound(f"chain `{self.chain}` has no results to pull: {error}") from None
            raise

    async def next(self, deadline: float | None, *, until_empty: bool) -> Result | None:
        """Returns the next result, which `confirm` takes for good. `None` after the deadline, or once nothing is left."""
        while not self.ahead:
            message = await self.message(deadline, until_empty=until_empty)
            if message is None:
                return None
            taken = Taken(message)
            self.largest = max(self.largest, len(taken.parts))
            if taken.parts:
                self.ahead.append(taken)
            else:
                await self.acknowledge(message)
        taken = self.ahead[0]
        value = taken.parts[taken.done][1]
        if taken.done in taken.large:
            value = await self.fetched(value)
        return taken.result(value)

    async def confirm(self) -> None:
        """Takes the result for good that `next` has returned last."""
        taken = self.ahead[0]
        taken.done += 1
        if self.left is not None:
            self.left -= 1
        if taken.done == len(taken.parts):
            self.ahead.popleft()
            await self.acknowledge(taken.message)

    async def message(self, deadline: float | None, *, until_empty: bool) -> Msg | None:
        """Returns a message with results."""
        while True:
            now = time.monotonic()
            if self.arrived.empty() and (self.requested == 0 or now >= self.requested_until):
                await self.request()
            wait = LOOK if until_empty else EXPIRES
            if deadline is not None:
                wait = min(wait, max(0.0, deadline - now))
            try:
                message = await asyncio.wait_for(self.arrived.get(), wait)
            except asyncio.TimeoutError:
                if until_empty and await self.is_drained():
                    return None
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                continue
            if not header(message.headers, "Status"):
                self.requested -= 1
                return message
            await self.ended(header(message.headers, "Status"), header(message.headers, "Description"))

    async def ended(self, status: str, reason: str) -> None:
        """The server has ended a request: it had nothing more, or its consumer has gone."""
        self.requested = 0
        if status not in NOTHING_MORE:
            await self.state(self.consumer)
            await asyncio.sleep(LOOK)
            log.debug("the server ended a pull of `%s`: %s %s", self.chain, status, reason)

    async def request(self) -> None:
        """Asks for messages: no more than a caller with a limit needs, since others may want the rest."""
        assert self.subscription is not None
        batch = BATCH if self.left is None else min(BATCH, max(1, self.left // self.largest))
        request = {"batch": batch, "expires": int(EXPIRES * 10**9)}
        subject = f"{self.wire.prefix}CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}"
        await self.wire.nats.publish(subject, json.dumps(request).encode(), reply=self.subscription.subject)
        self.requested = batch
        # Should the answer be lost with the connection.
        self.requested_until = time.monotonic() + EXPIRES + ANSWER

    async def is_drained(self) -> bool:
        """Whether every item is handled and all results are taken. In this order, none is missed."""
        if await self.wire.messages(f"PCLUSTER_{self.chain}"):
            return False
        state = await self.state(self.consumer)
        return not state["num_pending"] and not state["num_ack_pending"]

    async def acknowledge(self, message: Msg) -> None:
        from nats.errors import Error

        try:
            await self.wire.nats.request(message.reply, b"+ACK", timeout=ANSWER)
        except Error:
            # Then the server gives the results once more, to whoever asks.
            pass

    async def keep(self) -> None:
        """Tells the server from time to time that messages are still in use."""
        while True:
            await asyncio.sleep(ALIVE)
            for taken in self.ahead:
                await self.wire.nats.publish(taken.message.reply, b"+WPI")

    async def close(self) -> None:
        """Gives back what the caller does not have."""
        if self.alive is not None:
            self.alive.cancel()
        if self.subscription is None or self.wire.nats.is_closed:
            return
        # The server drops the request then. What it has sent by then arrives.
        await self.subscription.drain()  # type: ignore[no-untyped-call]
        while not self.arrived.empty():
            message = self.arrived.get_nowait()
            if not header(message.headers, "Status"):
                await self.wire.nats.publish(message.reply, b"-NAK")
        while self.ahead:
            await self.give_back(self.ahead.popleft())
        await self.wire.nats.flush()

    async def give_back(self, taken: Taken) -> None:
        """Gives results to the next puller: the whole message, or those of it that are left in a new one."""
        if taken.done == 0 or not await self.published_again(taken):
            await self.wire.nats.publish(taken.message.reply, b"-NAK")
        else:
            await self.acknowledge(taken.message)

    async def published_again(self, taken: Taken) -> bool:
        from nats.errors import Error

        rest = range(taken.done, len(taken.parts))
        headers = {key: value for key, value in (taken.message.headers or {}).items() if key.lower() not in KEPT_BEHIND}
        headers["Pcluster-Index"] = _wire.runs([taken.index[place] for place in rest])
        headers["Pcluster-Again"] = "1"
        headers["Nats-Msg-Id"] = f"pcluster.again.{uuid.uuid4().hex}"
        if large := [place - taken.done for place in rest if place in taken.large]:
            headers["Pcluster-Large"] = _wire.runs(large)
        payload = b"".join(taken.parts[place][0] for place in rest)
        try:
            answer = await self.wire.nats.request(self.again, payload, timeout=ANSWER, headers=headers)
        except Error:
            return False
        return "error" not in json.loads(answer.data)

    async def fetched(self, reference: dict[str, Any]) -> Any:
        """Returns the large item that a reference stands for."""
        from nats.js.errors import Error

        name, wanted = reference["name"], reference["digest"]
        bucket = f"pcluster_large_{self.chain}"
        try:
            store = await self.wire.objects(bucket)
            data = (await store.get(name)).data or b""
        except Error as error:
            raise ClientError(f"the large result `{name}` cannot be fetched from `{bucket}`: {error}") from error
        digest = "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
        if (len(data), digest) != (reference["size"], wanted):
            raise ClientError(f"the large result `{name}` is damaged: its digest is {digest}, and should be {wanted}")
        form = reference["form"]
        return _cbor.loads(data) if form == "cbor" else data.decode() if form == "text" else data
