"""The blocking client: the one for asyncio, whose loop runs in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pcluster.client._async import AsyncChain, AsyncClient, AsyncResults
from pcluster.client._feed import ITEMS_MAX, LINGER, item_of
from pcluster.client._model import Item

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Iterable, Iterator, Mapping

    from pcluster.client._model import DeadLetter, Deployment, Fed, Result, Status

T = TypeVar("T")


class Client:
    """A connection to the server of chains: `with Client(url) as client`, or `Client(url)` and `close()`.

    Connects at once. Further arguments go to `nats.connect`, such as `user_credentials`, `user`, `password` and `tls`. It may be used
    from several threads.
    """

    def __init__(self, url: str = "nats://127.0.0.1:4222", *, domain: str | None = None, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pcluster client", daemon=True)
        self._thread.start()
        self._client = AsyncClient(url, domain=domain, **options)
        try:
            self._run(self._client.connect())
        except BaseException:
            self._stop()
            raise

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C: what was begun would go on in the thread.
            future.cancel()
            raise

    def _stop(self) -> None:
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()

    def close(self) -> None:
        """Sends what is on its way, and closes the connection."""
        if not self._loop.is_closed():
            try:
                self._run(self._client.close())
            finally:
                self._stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chain(self, name: str) -> Chain:
        """Returns a chain, which need not be deployed yet."""
        return Chain(self, self._client.chain(name))

    def chains(self) -> list[str]:
        """Returns the names of all chains."""
        return self._run(self._client.chains())

    def deploy(self, path: str | os.PathLike[str], *, program: str = "pcluster") -> Deployment:
        """Deploys a chain, as `AsyncClient.deploy` does."""
        return self._run(self._client.deploy(path, program=program))


class Chain:
    """A chain. Its methods are those of `AsyncChain`, and block."""

    def __init__(self, client: Client, chain: AsyncChain) -> None:
        self._client = client
        self._chain = chain
        self.name = chain.name

    def feed(
        self,
        value: Any,
        *,
        id: str | None = None,
        topic: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Fed:
        """Feeds one item. While the first queue of the chain is full, waits, at most `timeout` seconds."""
        return self._client._run(self._chain.feed(value, id=id, topic=topic, headers=headers, timeout=timeout))

    def feed_all(
        self,
        values: Iterable[Any],
        *,
        topic: str | None = None,
        headers: Mapping[str, str] | None = None,
        pack: int = 256,
        timeout: float | None = None,
    ) -> Fed:
        """Feeds all items of an iterable, which is read no faster than the chain takes them, as `AsyncChain.feed_all` does."""
        given, feeder = Item(None, None, topic, headers), self._chain.feeder(pack, timeout)

        async def add(items: list[Item]) -> None:
            for item in items:
                await feeder.add(item)

        async def cancel() -> None:
            feeder.cancel()

        try:
            # In this thread: what the iterable does may take long, or use the client too.
            for items in batches(item_of(value, given) for value in values):
                self._client._run(add(items))
            return self._client._run(feeder.finish())
        finally:
            self._client._run(cancel())

    def results(
        self, limit: int | None = None, *, until_empty: bool = False, timeout: float | None = None, topic: str | None = None
    ) -> Results:
        """Returns an iterator over results, which takes them, as `AsyncChain.results` does."""
        return Results(self._client, self._chain.results(limit, until_empty=until_empty, timeout=timeout, topic=topic))

    def pull(self, limit: int | None = None, *, timeout: float | None = 0, topic: str | None = None) -> list[Result]:
        """Takes at most `limit` results, for good. Waits for them at most `timeout` seconds: `None` is as long as it takes."""
        return self._client._run(self._chain.pull(limit, timeout=timeout, topic=topic))

    def wait(self, *, timeout: float | None = None) -> None:
        """Waits until every item is handled. Raises `TimedOut` after `timeout` seconds."""
        self._client._run(self._chain.wait(timeout=timeout))

    def status(self) -> Status:
        """Returns what the chain has at the moment."""
        return self._client._run(self._chain.status())

    def dead(self, *, stage: str | None = None) -> Iterator[DeadLetter]:
        """Yields the dead letters, oldest first, without taking them."""
        letters = self._chain.dead(stage=stage)

        async def following() -> DeadLetter | None:
            return await anext(letters, None)

        while (letter := self._client._run(following())) is not None:
            yield letter

    def retry(self, letter: int | DeadLetter, *, program: str = "pcluster") -> None:
        """Gives the item of a dead letter fresh attempts, by the program `pcluster`."""
        self._client._run(self._chain.retry(letter, program=program))

    def reset(self, *, everything: bool = False, program: str = "pcluster") -> None:
        """Interrupts what runs and empties all queues, by the program `pcluster`. With `everything`, results and dead letters go too."""
        self._client._run(self._chain.reset(everything=everything, program=program))


class Results:
    """An iterator over results. When it is closed or dropped, it gives back what was not taken."""

    def __init__(self, client: Client, results: AsyncResults) -> None:
        self._client = client
        self._results = results

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Result:
        async def following() -> Result | None:
            return await anext(self._results, None)

        result = self._client._run(following())
        if result is None:
            raise StopIteration
        return result

    def close(self) -> None:
        """Gives back what was not taken."""
        if not self._client._loop.is_closed():
            self._client._run(self._results.aclose())

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Interpreters that end have no thread any more that could.
        if self._client._thread.is_alive():
            self.close()


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yields items together that come quickly one after the other."""
    batch: list[Item] = []
    since = time.monotonic()
    for item in items:
        batch.append(item)
        if len(batch) == ITEMS_MAX or time.monotonic() - since > LINGER:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch
