"""Calls of the node: the way of `http`, `kv`, `objects`, `publish` and `secrets`."""

from __future__ import annotations

from pcluster._errors import CallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from typing import Any


def denied(name: str, request: dict[str, Any]) -> dict[str, Any]:
    raise CallError("denied", f"only the sandbox answers `{name}`; in a test, `pcluster.testing.calls` does")


class Source:
    """Who answers: the node, or a test."""

    call: Callable[[str, dict[str, Any]], dict[str, Any]] = staticmethod(denied)


def call(name: str, /, **request: Any) -> dict[str, Any]:
    """Calls by name. What is `None` is left out."""
    return Source.call(name, {key: value for key, value in request.items() if value is not None})


def call_for(name: str, /, **request: Any) -> dict[str, Any] | None:
    """Calls for something that may not be there. `None` if it is not."""
    try:
        return call(name, **request)
    except CallError as error:
        # Transient, if what it would be in is not there.
        if error.kind == "not_found" and not error.transient:
            return None
        raise


def pages(name: str, part: str, name_of: Callable[[Any], str], /, **request: Any) -> Iterator[Any]:
    """Yields what is listed, page after page."""
    after = None
    while True:
        answer = call(name, after=after, **request)
        yield from answer[part]
        if not answer["more"] or not answer[part]:
            return
        after = name_of(answer[part][-1])


def data(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def millis(time: float | timedelta | None) -> int | None:
    if time is None:
        return None
    return round((time if isinstance(time, (int, float)) else time.total_seconds()) * 1000)
