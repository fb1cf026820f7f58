"""Runs the examples of a task before the snapshot, so that an item finds everything warm and in few places.

The interpreter writes to the code that it runs: it counts how often, and which way branches went. A node puts each page back that an
item has written to, so the code of all functions that the examples run is made anew, one beside the other.
"""

from __future__ import annotations

import gc
import sys
import types

import pcluster_engine as engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Codes = dict[int, types.CodeType]

#: How often the examples run at the most once their code is in its place: until the interpreter has fitted it to them.
ROUNDS = 32
#: How often in any case: the second time finds the memory as an item will.
ROUNDS_MIN = 2
#: How many lines this may take. A clock would tell better how long it takes, but a state that has seen one cannot be kept.
LINES = 500_000


def examples(items: list[Any], function: Callable[..., Any], renew: Callable[[], None]) -> Iterator[Any]:
    """Yields the items to run by the function. `renew` is what an instance does before its first item."""
    # Without examples, its own code is all that is known to run.
    own = getattr(function, "__code__", None)
    codes: Codes = {} if own is None else {id(own): own}
    lines = 0

    def watch(frame: types.FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += 1
        codes[id(frame.f_code)] = frame.f_code
        return watch

    sys.settrace(watch)
    try:
        renew()
        yield from items
    finally:
        sys.settrace(None)
    put_together(codes)
    for _ in range(max(ROUNDS_MIN, min(ROUNDS, LINES // max(lines, 1)))):
        renew()
        yield from items


def put_together(codes: Codes) -> None:
    """Makes this code anew in all functions that have it."""
    has: dict[int, tuple[types.CodeType, bool]] = {}

    def has_some(code: types.CodeType) -> bool:
        """Returns whether it is to be made anew: it, or code of a function within it."""
        known = has.get(id(code))
        if known is None:
            within = [has_some(each) for each in code.co_consts if type(each) is types.CodeType]
            known = has[id(code)] = code, id(code) in codes or True in within
        return known[1]

    new: Codes = {}

    def anew(code: types.CodeType) -> types.CodeType:
        made = new.get(id(code))
        if made is None:
            constants = (anew(each) if type(each) is types.CodeType and has_some(each) else each for each in code.co_consts)
            made = new[id(code)] = code.replace(co_consts=tuple(constants))
        return made

    functions = [each for each in gc.get_objects() if type(each) is types.FunctionType and has_some(each.__code__)]
    engine.fill_holes()
    for function in functions:
        function.__code__ = anew(function.__code__)
