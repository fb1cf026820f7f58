"""What a task may know of its item and its stage."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Context:
    """The chain, the stage and the item."""

    __slots__ = ("attempt", "chain", "config", "id", "revision", "stage", "topic", "version")

    #: The name of the chain.
    chain: str
    #: The version of the chain, as its author wrote it.
    version: str
    #: The revision number of the version.
    revision: int
    #: The name of the stage.
    stage: str
    #: The topic of the item. `None` if it has none.
    topic: str | None
    #: The id of the item, the same at each attempt.
    id: str
    #: The number of the attempt, from 1.
    attempt: int
    #: The stage's `config`. Empty if it has none.
    config: Any

    def __init__(
        self,
        chain: str = "test",
        version: str = "test",
        revision: int = 1,
        stage: str = "test",
        topic: str | None = None,
        id: str = "test",
        attempt: int = 1,
        config: Any = None,
        **_later: Any,
    ) -> None:
        self.chain = chain
        self.version = version
        self.revision = revision
        self.stage = stage
        self.topic = topic
        self.id = id
        self.attempt = attempt
        self.config = {} if config is None else config

    def __repr__(self) -> str:
        return f"Context({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class Source:
    """Where the context comes from: the sandbox, the worker, or a test."""

    current: Callable[[], Context] = Context


def context() -> Context:
    """Returns the context of the item that the task handles now.

    Outside of pcluster, as in a test, it is one of a test: see `pcluster.testing.context`.
    """
    return Source.current()
