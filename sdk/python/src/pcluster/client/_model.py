"""What a client gives and gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ClientError(Exception):
    """What a client wanted has failed. The text says why, and what to do."""


class NotFound(ClientError):
    """There is no such chain, or no such dead letter."""


class TimedOut(ClientError, TimeoutError):
    """It took longer than the caller would wait."""


@dataclass
class Item:
    """An item to feed, with what belongs to it alone.

    Of two items with the same `id` the chain takes one, for as long as it remembers ids. Results return the id, the topic and the
    headers.
    """

    value: Any
    id: str | None = None
    topic: str | None = None
    headers: Mapping[str, str] | None = None


@dataclass
class Fed:
    """What came of feeding."""

    #: Items that the chain has taken.
    items: int = 0
    #: Items that it knew by their ids, and has not taken again.
    duplicates: int = 0


@dataclass(frozen=True)
class Result:
    """A result of a chain."""

    value: Any
    #: The id of the fed item: its own, or that of its message with its place in it.
    id: str
    topic: str | None
    #: The version and revision that finished the item, and the node.
    version: str
    revision: int
    node: str
    #: The headers that were fed with the item.
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeadLetter:
    """An item that failed for good."""

    number: int
    #: The item as its stage got it. `None` if it cannot be read: then `payload` has what was fed.
    value: Any
    payload: bytes
    id: str
    topic: str | None
    stage: str
    #: The kind of failure, such as `error`, `trap`, `timeout` or `undecodable`.
    failure: str
    reason: str
    attempts: int
    version: str
    revision: int
    node: str
    #: When it failed for good, as RFC 3339.
    time: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageStatus:
    """A stage of a revision."""

    stage: str
    #: Messages that wait, run, or wait for another attempt. `None` for an inline stage, which has no queue.
    queued: int | None
    #: Items that ended, well or not, as nodes have reported.
    done: int
    #: Those of them that became dead letters.
    failed: int


@dataclass(frozen=True)
class Status:
    """A chain at one moment."""

    chain: str
    #: The version and revision that newly fed items get.
    version: str
    revision: int
    #: Whether items may be fed.
    is_open: bool
    #: Messages that are not finished, of all revisions. Each may hold many items.
    unfinished: int
    #: Messages with results that nobody has taken for good.
    results: int
    dead: int
    #: The stages of that revision, in order.
    stages: list[StageStatus]


@dataclass(frozen=True)
class Deployment:
    """What a deploy has made."""

    chain: str
    version: str
    revision: int
    #: `False` if it was deployed before.
    is_new: bool
