"""Runs a task as a native worker: `python3 -m pcluster.worker FILE.py [--task NAME]`, with any library of this machine.

    [[stage]]
    name = "clean"
    exec = ["python3", "-m", "pcluster.worker", "clean.py"]
    files = ["clean.py"]
    isolation = "worker"

Values, outputs and errors mean what they mean in the sandbox. The stage's name chooses the task if the file has several.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pcluster import _context, _failure, _log, _task
from pcluster._context import Context
from pcluster._run import Fault, outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Channel:
    """The two pipes between a worker and its node."""

    def __init__(self, items: TextIO, answers: TextIO) -> None:
        self.items = items
        self.answers = answers
        #: The request that is handled now.
        self.request: int | None = None

    def say(self, *messages: dict[str, Any]) -> None:
        self.answers.write("".join(json.dumps(message) + "\n" for message in messages))
        self.answers.flush()

    def log(self, level: int, text: str) -> None:
        entry: dict[str, Any] = {"message": text, "level": _log.NAMES[level]}
        if self.request is not None:
            entry["request"] = self.request
        self.say({"log": entry})


def choose(name: str | None) -> str:
    """Returns the name of the task to run."""
    names = sorted(_task.TASKS)
    if not names:
        raise SystemExit("the file has no task; mark a function with `@task` (from pcluster import task)")
    stage = os.environ.get("PCLUSTER_STAGE", "")
    wanted = name or (names[0] if len(names) == 1 else stage)
    if wanted not in _task.TASKS:
        raise SystemExit(f"the file has no task `{wanted}`; it has {', '.join(names)}. `--task NAME` chooses one")
    return wanted


def load(path: Path) -> None:
    """Imports a file as the sandbox does: under its own name, with its folder to import from."""
    if not path.is_file():
        raise SystemExit(f"there is no file {path}; `files` in the manifest brings it to the nodes")
    sys.path.insert(0, str(path.resolve().parent))
    importlib.import_module(path.stem)


def answer(channel: Channel, task: Callable[[Any], Any], data: bytes) -> list[dict[str, Any]]:
    """Returns the messages that answer an item."""
    request = channel.request
    try:
        messages = []
        for output, topic in outputs_of(task, data):
            if topic is not None:
                raise _failure.Permanent("a worker cannot give an output a topic of its own; run the task in the sandbox")
            messages.append({"output": {"request": request, "cbor": base64.b64encode(output).decode()}})
    except KeyboardInterrupt:
        raise
    except Fault as fault:
        assert fault.__cause__ is not None
        return [failure(request, fault.__cause__, fault.number)]
    except BaseException as error:
        return [failure(request, error, _failure.TASK)]
    return [*messages, {"done": {"request": request}}]


def failure(request: int | None, error: BaseException, fault: int) -> dict[str, Any]:
    reason, trace, permanent, after = _failure.describe(error, fault)
    told: dict[str, Any] = {"request": request, "message": reason}
    if permanent:
        told["permanent"] = True
    if after is not None:
        told["retry_after_ms"] = after
    if trace:
        told["trace"] = trace
    return {"error": told}


def serve(channel: Channel, task: Callable[[Any], Any], about: dict[str, Any]) -> None:
    """Handles items until there is no other."""
    now: dict[str, Any] = {}
    _context.Source.current = lambda: Context(**about, **now)
    for line in channel.items:
        item = json.loads(line).get("item")
        if item is None:
            continue
        channel.request = item["request"]
        now = {name: item[name] for name in ("id", "attempt", "topic") if name in item}
        messages = answer(channel, task, base64.b64decode(item["cbor"]))
        channel.request = None
        channel.say(*messages)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m pcluster.worker", description="Runs a task as a native worker.")
    parser.add_argument("file", metavar="FILE.py", type=Path)
    parser.add_argument("--task", metavar="NAME", help="the task, if the file has several and none has the stage's name")
    options = parser.parse_args(arguments)
    environment = os.environ
    if "PCLUSTER_WORKER_IN" not in environment:
        raise SystemExit('a node starts this: write `exec = ["python3", "-m", "pcluster.worker", "FILE.py"]` in a manifest')
    pipes = [int(environment[f"PCLUSTER_WORKER_{way}"]) for way in ("IN", "OUT")]
    with open(pipes[0], encoding="utf-8") as items, open(pipes[1], "w", encoding="utf-8") as answers:
        channel = Channel(items, answers)
        _log.Log.write = staticmethod(channel.log)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        import logging

        _log.adopt(logging)
        load(options.file)
        name = choose(options.task)
        about = {key: environment.get(f"PCLUSTER_{key.upper()}", "") for key in ("chain", "version", "stage")}
        about["revision"] = int(environment.get("PCLUSTER_REVISION") or 0)
        about["config"] = json.loads(environment.get("PCLUSTER_CONFIG") or "null")
        _context.Source.current = lambda: Context(**about)
        task = _task.TASKS[name].bind(Context(**about).config)
        channel.say({"hello": {"version": 1, "name": name, "items": "cbor"}})
        serve(channel, task, about)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
