"""A client of chains: feeds items, takes results, and sees what becomes of them.

    from pcluster.client import Client

    with Client("nats://127.0.0.1:4222") as client:
        orders = client.chain("orders")
        orders.feed({"id": "1", "lines": []})
        for result in orders.results(until_empty=True):
            print(result.value)

`AsyncClient` has the same methods for asyncio. Both need the extra `pcluster[client]`. Values mean what they mean in tasks.
"""

from pcluster.client._async import AsyncChain, AsyncClient, AsyncResults
from pcluster.client._model import ClientError, DeadLetter, Deployment, Fed, Item, NotFound, Result, StageStatus, Status, TimedOut
from pcluster.client._sync import Chain, Client, Results

__all__ = [
    "AsyncChain", "AsyncClient", "AsyncResults", "Chain", "Client", "ClientError", "DeadLetter", "Deployment", "Fed", "Item",
    "NotFound", "Result", "Results", "StageStatus", "Status", "TimedOut",
]  # fmt: skip
