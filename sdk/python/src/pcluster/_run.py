"""Runs a task on an item outside of the sandbox, with the same meaning."""

from __future__ import annotations

import types

from pcluster import _cbor
from pcluster._failure import ITEM, OUTPUT
from pcluster._values import WithTopic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Fault(Exception):
    """The item cannot be read, or an output not be written. The cause is what was raised."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def outputs_of(task: Callable[[Any], Any], data: bytes) -> Iterator[tuple[bytes, str | None]]:
    """Runs a task on an item in CBOR. Yields its outputs, each with its topic if it has one of its own."""
    try:
        item = _cbor.loads(data)
    except Exception as error:
        raise Fault(ITEM) from error
    result = task(item)
    if isinstance(result, types.GeneratorType):
        for output in result:
            yield written(output)
    elif result is not None:
        yield written(result)


def written(output: Any) -> tuple[bytes, str | None]:
    value, topic = (output.value, output.topic) if type(output) is WithTopic else (output, None)
    try:
        return _cbor.dumps(value), topic
    except Exception as error:
        raise Fault(OUTPUT) from error
