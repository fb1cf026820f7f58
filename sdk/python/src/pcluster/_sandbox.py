"""The SDK's side in the sandbox: what the driver asks for, and what a snapshot must not freeze.

Imports of this file are in each plugin, so it has few.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import time
import types

import pcluster_engine as engine

from pcluster import _call, _context, _failure, _log, _task, _values, _warm
from pcluster._context import Context
from pcluster._errors import CallError, Permanent

# What the driver tells apart.
NONE, TRUE, FALSE = None, True, False
INT, FLOAT, STR, BYTES, LIST, TUPLE, DICT = int, float, str, bytes, list, tuple, dict
GENERATOR, TOPIC, ERROR = types.GeneratorType, _values.WithTopic, ValueError
tag, other = _values.tag, _values.other
collect = gc.collect

#: The task of the stage, whether an example of it runs, and what it lists as its calls.
current = {"task": None, "is_example": False, "calls": ()}


def to_log(level, text):
    engine.log(level, text.encode("utf-8", "backslashreplace"))


def call(name, request):
    """Calls the node."""
    group = name.partition(".")[0]
    if group not in current["calls"]:
        raise CallError("denied", f"the task lists no calls of {group}; write `@task(calls=[\"{group}\"])`")
    is_answered, answer = engine.call(name.encode(), request)
    if is_answered:
        return answer
    after = answer.get("retry_after_ms")
    raise CallError(answer["kind"], answer["message"], transient=answer["transient"], after_ms=after)


def load(number):
    """Imports the author's modules. Returns the function of an item of this task."""
    plan = json.loads(engine.files["pcluster.json"])
    config = Context(**engine.context()).config
    current["calls"] = plan["calls"][number]
    for module in plan["modules"]:
        __import__(module)
    name = plan["tasks"][number]
    if name not in _task.TASKS:
        raise Permanent(f"no module of the plugin has the task `{name}` when it is imported")
    current["task"] = _task.TASKS[name]
    return current["task"].bind(config)


def examples():
    """Returns an iterator of the items that run before the snapshot."""
    current["is_example"] = True
    task = current["task"]
    return _warm.examples(task.examples, task.function, renew)


def settle():
    """Ends the examples. Returns all objects that there are: they are never freed."""
    current["is_example"] = False
    gc.collect()
    objects = everything()
    gc.freeze()
    return objects


def everything():
    """Returns all objects. The collector knows only those that hold others."""
    code = types.CodeType
    seen, todo = {}, [sys.modules, *gc.get_objects()]
    own = {id(seen), id(todo)}
    while todo:
        each = todo.pop()
        if id(each) in seen or id(each) in own:
            continue
        seen[id(each)] = each
        if type(each) is code:
            todo += [getattr(each, name) for name in CODE_PARTS]
        elif isinstance(each, dict):
            todo += dict.keys(each)
        todo += gc.get_referents(each)
    return list(seen.values())


#: What a code object holds, which the collector does not tell.
CODE_PARTS = (
    "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_filename", "co_name", "co_qualname",
    "co_linetable", "co_exceptiontable",
)  # fmt: skip


def renew():
    """Called once in an instance, before its first item: chance and time begin anew."""
    modules = sys.modules
    random = modules.get("random")
    if random is not None:
        # Its own `seed()` asks for 2,500 bytes, and writes to a dozen pages for them.
        random._inst.seed(int.from_bytes(os.urandom(16), "big"))
    logging = modules.get("logging")
    if logging is not None:
        logging._startTime = time.time_ns()
    uuid = modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None
        uuid._node = None
        if hasattr(uuid, "_last_timestamp_v7"):
            uuid._last_timestamp_v7 = None


def failed(exception, fault):
    """Tells the node why an item, or the making of the state, has failed. Returns the status."""
    reason, trace, permanent, after = _failure.describe(exception, fault, in_sandbox=True)
    if current["is_example"]:
        current["is_example"] = False
        reason = f"an example of the task fails: {reason}"
    text = f"{reason}\n{trace}" if trace else reason
    engine.fail(text.encode("utf-8", "backslashreplace"))
    if after is not None:
        engine.retry_after(after)
    # The trace holds the frames, and these all that the item had.
    exception.__traceback__ = None
    return 2 if permanent else 1


def after_asyncio(asyncio):
    """Gives `asyncio` a loop without sockets. Nothing can happen in it but timers and calls."""
    from asyncio import base_events, events

    class Selector:
        def select(self, timeout):
            if timeout is None:
                raise RuntimeError("the task waits for what cannot come: the sandbox has only timers")
            if timeout > 0:
                time.sleep(timeout)
            return ()

        def close(self):
            pass

    class Loop(base_events.BaseEventLoop):
        def __init__(self):
            super().__init__()
            self._selector = Selector()

        def _process_events(self, event_list):
            pass

        def _write_to_self(self):
            pass

    class Policy(events._BaseDefaultEventLoopPolicy):
        _loop_factory = Loop

    events._set_event_loop_policy(Policy())


class Stream(io.TextIOBase):
    """Standard output or error. Nothing is held back: the node puts lines together, and ends half a line with its item."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def fileno(self):
        return self._descriptor

    def writable(self):
        return True

    def write(self, text):
        data = text.encode(self.encoding, self.errors)
        while data:
            data = data[os.write(self._descriptor, data) :]
        return len(text)


sys.stdout, sys.stderr = Stream(1), Stream(2)
_context.Source.current = lambda: Context(**engine.context())
_log.Log.write = staticmethod(to_log)
_call.Source.call = staticmethod(call)
_failure.OWN_FILES.add(engine.start.__code__.co_filename)
engine.after_import.update({"asyncio": after_asyncio, "logging": _log.adopt})
for _name, _after in engine.after_import.items():
    # The interpreter's own part has imported it before.
    if _name in sys.modules:
        _after(sys.modules[_name])
