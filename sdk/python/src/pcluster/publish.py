"""Messages to NATS subjects that the stage is granted.

Each carries the same `Nats-Msg-Id` at each attempt on the item: a stream keeps such a message once, within its window of duplicates.
"""

from __future__ import annotations

from pcluster._call import call, data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Stored:
    """Where a stream has stored a message."""

    def __init__(self, stream: str, sequence: int, duplicate: bool) -> None:
        self.stream = stream
        self.sequence = sequence
        #: The stream had it already, as from an attempt before.
        self.duplicate = duplicate

    def __repr__(self) -> str:
        return f"Stored({self.stream!r}, {self.sequence})"


def publish(subject: str, payload: str | bytes = b"", headers: Mapping[str, str] | None = None) -> None:
    """Publishes a message and waits for nothing. Nobody may be there to receive it."""
    call("publish", subject=subject, payload=data(payload), headers=pairs(headers))


def publish_and_wait(subject: str, payload: str | bytes = b"", headers: Mapping[str, str] | None = None) -> Stored:
    """Publishes a message and waits until a stream has stored it."""
    answer = call("publish", subject=subject, payload=data(payload), headers=pairs(headers), wait=True)
    return Stored(answer["stream"], answer["sequence"], answer["duplicate"])


def pairs(headers: Mapping[str, str] | None) -> list[list[str]] | None:
    return [[name, value] for name, value in headers.items()] if headers else None
