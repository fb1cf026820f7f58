"""Marks functions as tasks."""

from __future__ import annotations

from pcluster._errors import Mismatch, Permanent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar, overload

    Function = TypeVar("Function", bound=Callable[..., Any])

#: The tasks by name.
TASKS: dict[str, Task] = {}


class Task:
    """A function that handles items, and what belongs to it."""

    __slots__ = ("examples", "function", "init")

    def __init__(self, function: Callable[..., Any], init: Callable[..., Any] | None, examples: Iterable[Any]) -> None:
        self.function = function
        self.init = init
        self.examples = list(examples)

    def bind(self, config: Any) -> Callable[[Any], Any]:
        """Makes the state of the task. Returns the function of an item."""
        function, read = self.function, reader_of(self.function, "the item")
        if self.init is None:
            return function if read is None else lambda item: function(read(item))
        state = self.make_state(config)
        if read is None:
            return lambda item: function(item, state)
        return lambda item: function(read(item), state)

    def make_state(self, config: Any) -> Any:
        init = self.init
        assert init is not None
        if parameters(init) == 0:
            return init()
        read = reader_of(init, "the stage's `config`")
        return init(config if read is None else read(config))


def parameters(function: Callable[..., Any]) -> int:
    """Returns how many arguments by position a function takes. A callable that is no function counts as one with one."""
    code = getattr(function, "__code__", None)
    return 1 if code is None else code.co_argcount


def reader_of(function: Callable[..., Any], what: str) -> Callable[[Any], Any] | None:
    """Returns what turns a value into the type of the first parameter. `None` if it is handed over as it is."""
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    if not names or not getattr(function, "__annotations__", None):
        return None
    # Late, because it imports `typing`.
    from pcluster import _types

    hint, text = _types.hint(function, names[0])
    read = _types.reader(hint)
    if read is None:
        return None

    def checked(value: Any) -> Any:
        try:
            return read(value)
        except _types.Misfit as misfit:
            reason = f"{what} is not of type `{text}`: {misfit}"
        raise Mismatch(reason)

    return checked


if TYPE_CHECKING:

    @overload
    def task(function: Function, /) -> Function: ...
    @overload
    def task(
        *, init: Callable[..., Any] | None = None, examples: Iterable[Any] = (), calls: Iterable[str] = ()
    ) -> Callable[[Function], Function]: ...


def task(function=None, /, *, init=None, examples=(), calls=()):
    """Makes a function a task, under its name. The function stays what it is.

    - `init` makes a state once, from the stage's `config`; the task gets it as its second argument.
    - `examples` are items that run before the snapshot, so that the first real item finds everything warm.
    - `calls` lists what the task calls: `http`, `kv`, `objects`, `publish`, `secrets`. `pcluster.build` reads it.
    """

    def mark(function):
        name = function.__name__
        earlier = TASKS.get(name)
        if earlier is not None and earlier.function.__module__ != function.__module__:
            raise Permanent(f"two tasks are named `{name}`: in {earlier.function.__module__} and in {function.__module__}")
        expected = 1 if init is None else 2
        if parameters(function) < expected:
            arguments = "the item" if expected == 1 else "the item and the state that `init` makes"
            raise Permanent(f"the task `{name}` takes {parameters(function)} arguments; it gets {arguments}")
        TASKS[name] = Task(function, init, examples)
        return function

    return mark if function is None else mark(function)
