"""Helps to test tasks without pcluster. A task is a plain function: these are for what is around it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pcluster import _call, _cbor, _task
from pcluster._context import Context, Source
from pcluster._run import outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


@contextmanager
def context(**values: Any) -> Iterator[Context]:
    """Sets what `pcluster.context()` returns: `with context(config={"word": "Hi"}, attempt=2): ...`."""
    given, before = Context(**values), Source.current
    Source.current = lambda: given
    try:
        yield given
    finally:
        Source.current = before


@contextmanager
def calls(answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Answers the calls of a task: `answer(name, request)` returns the response, or raises a `CallError`.

    Names, requests and responses are those of the plugin ABI, such as `kv.get` with `bucket` and `key`.
    """
    before = _call.Source.call
    _call.Source.call = staticmethod(answer)
    try:
        yield
    finally:
        _call.Source.call = before


def run(function: Callable[..., Any], item: Any, **values: Any) -> list[Any]:
    """Runs a task on an item as a node does, through CBOR both ways, and with the state that its `init` makes.

    Returns its outputs as the next stage would get them. `values` are those of the context, such as `config`.
    """
    with context(**values) as given:
        task = _task.TASKS[function.__name__].bind(given.config)
        return [_cbor.loads(output) for output, _ in outputs_of(task, _cbor.dumps(item))]
