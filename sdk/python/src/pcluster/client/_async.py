"""The client for asyncio."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from pcluster.client import _program, _status
from pcluster.client._feed import Feeder, iterated
from pcluster.client._model import ClientError, DeadLetter, Deployment, Fed, Item, Result, Status, TimedOut
from pcluster.client._pull import Puller
from pcluster.client._wire import Wire

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping

log = logging.getLogger("pcluster.client")

#: The options of a connection that is tried for the first time.
ONCE = {"max_reconnect_attempts": 1, "reconnect_time_wait": 0.1}
#: How often to look whether a chain is empty, in seconds.
LOOK = 0.05


class AsyncClient:
    """A connection to the server of chains: `async with AsyncClient(url) as client`.

    Further arguments go to `nats.connect`, such as `user_credentials`, `user`, `password` and `tls`.
    """

    def __init__(self, url: str = "nats://127.0.0.1:4222", *, domain: str | None = None, **options: Any) -> None:
        self.url = url
        self._domain = domain
        self._options = options
        self._wire: Wire | None = None

    async def connect(self) -> AsyncClient:
        """Connects, unless it is connected. Without it, `async with` does."""
        if self._wire is None:
            try:
                import nats
                from nats.errors import Error
            except ImportError as error:
                raise ClientError(f"the client needs nats-py: install `pcluster[client]` ({error})") from error
            options: dict[str, Any] = {"name": "pcluster client in Python", "error_cb": _tell, **self._options}
            try:
                # A server that is not there now is an error. One that goes away later is waited for.
                connection = await nats.connect(self.url, **{**options, **ONCE})
                connection.options |= {"reconnect_time_wait": 2, "max_reconnect_attempts": -1, **self._options}
                self._wire = Wire(connection, self.url, self._domain, options)
            except (Error, OSError) as error:
                raise ClientError(f"cannot connect to {self.url}: {error or type(error).__name__}") from error
        return self

    async def close(self) -> None:
        """Sends what is on its way, and closes the connection."""
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await wire.nats.drain()

    async def __aenter__(self) -> AsyncClient:
        return await self.connect()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def wire(self) -> Wire:
        if self._wire is None:
            raise ClientError("the client is not connected: use it as `async with AsyncClient() as client`")
        return self._wire

    def chain(self, name: str) -> AsyncChain:
        """Returns a chain, which need not be deployed yet."""
        return AsyncChain(self, name)

    async def chains(self) -> list[str]:
        """Returns the names of all chains."""
        return await self.wire.chains()

    async def deploy(self, path: str | os.PathLike[str], *, program: str = "pcluster") -> Deployment:
        """Deploys a chain: a `chain.toml`, or the folder with it. Plugins that it names by their folders are built first.

        The program `pcluster` does that, with this client's server.
        """
        said = await _program.run(program, ["deploy", str(path)], self.wire)
        return Deployment(said["chain"], said["version"], said["revision"], said["changed"])


async def _tell(error: Exception) -> None:
    """Without it, nats-py writes each error of a connection to standard error."""
    log.debug("the connection: %r", error)


class AsyncChain:
    """A chain."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self.client = client
        self.name = name

    async def feed(
        self,
        value: Any,
        *,
        id: str | None = None,
        topic: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Fed:
        """Feeds one item. While the first queue of the chain is full, waits, at most `timeout` seconds.

        Of two items with the same `id` the chain takes one, for as long as it remembers ids.
        """
        return await self.feed_all([Item(value, id, topic, headers)], timeout=timeout)

    async def feed_all(
        self,
        values: AsyncIterable[Any] | Iterable[Any],
        *,
        topic: str | None = None,
        headers: Mapping[str, str] | None = None,
        pack: int = 256,
        timeout: float | None = None,
    ) -> Fed:
        """Feeds all items of an iterable, which is read no faster than the chain takes them.

        An `Item` among them has an id, a topic and headers of its own. Up to `pack` items without ids travel together.
        """
        feeder = self.feeder(pack, timeout)
        try:
            async for item in iterated(values, Item(None, None, topic, headers)):
                await feeder.add(item)
            return await feeder.finish()
        finally:
            feeder.cancel()

    def feeder(self, pack: int, timeout: float | None) -> Feeder:
        return Feeder(self.client.wire, self.name, pack=pack, timeout=timeout)

    def results(
        self, limit: int | None = None, *, until_empty: bool = False, timeout: float | None = None, topic: str | None = None
    ) -> AsyncResults:
        """Returns an iterator over results, which takes them: each goes to one puller.

        It ends after `limit` results, after `timeout` seconds, or, with `until_empty`, once every item is handled and all results
        are taken. A result is taken for good when the next one is asked for: one that was not gets handed out again.
        """
        return AsyncResults(self, limit, until_empty, timeout, topic)

    async def pull(self, limit: int | None = None, *, timeout: float | None = 0, topic: str | None = None) -> list[Result]:
        """Takes at most `limit` results, for good. Waits for them at most `timeout` seconds: `None` is as long as it takes."""
        if limit is None and timeout is None:
            raise ValueError("without a `limit` and a `timeout` it would never end: use `results()`")
        async with self.results(limit, timeout=timeout, topic=topic) as results:
            return [result async for result in results]

    async def wait(self, *, timeout: float | None = None) -> None:
        """Waits until every item is handled. Raises `TimedOut` after `timeout` seconds."""
        await self.client.wire.state(self.name)
        deadline = None if timeout is None else time.monotonic() + timeout
        while left := await self.client.wire.messages(f"PCLUSTER_{self.name}"):
            if deadline is not None and time.monotonic() + LOOK > deadline:
                raise TimedOut(f"`{self.name}` still has {left} messages after {timeout:g} s")
            await asyncio.sleep(LOOK)

    async def status(self) -> Status:
        """Returns what the chain has at the moment."""
        return await _status.status(self.client.wire, self.name)

    async def dead(self, *, stage: str | None = None) -> AsyncIterator[DeadLetter]:
        """Yields the dead letters, oldest first, without taking them."""
        await self.client.wire.state(self.name)
        async for letter in _status.dead(self.client.wire, self.name, stage):
            yield letter

    async def retry(self, letter: int | DeadLetter, *, program: str = "pcluster") -> None:
        """Gives the item of a dead letter fresh attempts, by the program `pcluster`."""
        number = letter.number if isinstance(letter, DeadLetter) else letter
        await _program.run(program, ["dead", "retry", self.name, str(number)], self.client.wire)

    async def reset(self, *, everything: bool = False, program: str = "pcluster") -> None:
        """Interrupts what runs and empties all queues, by the program `pcluster`. With `everything`, results and dead letters go too."""
        await _program.run(program, ["reset", self.name, *(["--all"] if everything else [])], self.client.wire)


class AsyncResults:
    """An iterator over results. `async with` gives back at once what was not taken; without it, others get it after 30 seconds."""

    def __init__(self, chain: AsyncChain, limit: int | None, until_empty: bool, timeout: float | None, topic: str | None) -> None:
        self._puller = Puller(chain.client.wire, chain.name, topic, limit)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._until_empty = until_empty
        self._is_open = self._is_over = self._has_one = False

    def __aiter__(self) -> AsyncResults:
        return self

    async def __anext__(self) -> Result:
        if self._is_over:
            raise StopAsyncIteration
        if not self._is_open:
            await self._puller.open()
            self._is_open = True
        if self._has_one:
            await self._puller.confirm()
            self._has_one = False
        result = None
        if self._puller.left != 0:
            result = await self._puller.next(self._deadline, until_empty=self._until_empty)
        if result is None:
            await self.aclose()
            raise StopAsyncIteration
        self._has_one = True
        return result

    async def aclose(self) -> None:
        """Gives back what was not taken."""
        if not self._is_over:
            self._is_over = True
            await self._puller.close()

    async def __aenter__(self) -> AsyncResults:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
