"""What a failure says: the exception, its causes, and the lines of the author that it went through."""

from __future__ import annotations

import sys
import traceback

from pcluster._errors import CallError, Permanent, Transient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    # The reason, the trace, whether it is permanent, and how many milliseconds the next attempt waits.
    Failure = tuple[str, str, bool, int | None]


#: Where an exception was raised: in the task, while its item was read, or while an output was written.
TASK, ITEM, OUTPUT = range(3)
#: The errors that say all there is to say: without their type, and without lines.
OWN = (CallError, Permanent, Transient)
FAULTS = {ITEM: "the item cannot be read", OUTPUT: "the output cannot be written"}

#: Files of the interpreter itself, through which each import goes.
OWN_FILES: set[str] = set()

#: The most lines of a trace. The innermost are kept.
FRAMES_MAX = 20
#: The most characters of what an exception says.
TEXT_MAX = 4000
#: The most causes that are told.
CAUSES_MAX = 8

#: What to do, by the type of the exception and a part of its text.
ADVICE = (
    (ModuleNotFoundError, "No module named", "the plugin has no such module: add its package to requirements.txt; one with code in C "
     'runs in a native worker, with `exec` and `isolation = "worker"`'),
    (ImportError, "_ctypes", 'what needs code in C runs in a native worker, with `exec` and `isolation = "worker"`'),
    (RuntimeError, "can't start new thread", "the sandbox has no threads: several items run at once by themselves"),
    (FileNotFoundError, "", "the sandbox has no files: put them beside the task, and read them with importlib.resources"),
    (OSError, "does not support processes", "the sandbox starts no processes: run them as a stage of their own, with `exec`"),
    (RecursionError, "", "the task calls itself, or its value is nested, too deeply"),
    (MemoryError, "Parser stack", "its source is nested too deeply"),
    (MemoryError, "", "the stage's `memory` sets how much an item may have"),
)  # fmt: skip


def text_of(exception: BaseException) -> str:
    """Returns the type and the message; of the SDK's own errors the message alone."""
    try:
        text = str(exception)
    except Exception as error:
        text = f"<its text cannot be had: {type(error).__name__}>"
    for note in getattr(exception, "__notes__", ()):
        text += f"\n{note}"
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + "…"
    if isinstance(exception, OWN) and text:
        return text
    name = type(exception).__qualname__
    if type(exception).__module__ not in ("builtins", "__main__"):
        name = f"{type(exception).__module__}.{name}"
    return f"{name}: {text}" if text else name


def causes(exception: BaseException) -> list[BaseException]:
    """Returns what an exception comes of, the nearest first."""
    found: list[BaseException] = []
    while len(found) < CAUSES_MAX:
        cause = exception.__cause__
        if cause is None and not exception.__suppress_context__:
            cause = exception.__context__
        if cause is None or cause in found:
            break
        found.append(cause)
        exception = cause
    return found


def lines_of(trace: TracebackType | None) -> str:
    """Returns the lines that an exception went through, without those of the SDK."""
    frames = [frame for frame in traceback.walk_tb(trace) if not is_own(frame[0].f_code.co_filename)]
    shown = traceback.StackSummary.extract(iter(frames[-FRAMES_MAX:]))
    text = "".join(shown.format()).rstrip()
    left_out = len(frames) - FRAMES_MAX
    return f"  … {left_out} calls before\n{text}" if left_out > 0 else text


def is_own(path: str) -> bool:
    return path in OWN_FILES or path.startswith("pcluster/") or "/pcluster/_" in path or path.endswith("/pcluster/worker.py")


def advice(exception: BaseException, text: str) -> str:
    """Returns what to do about an exception that the sandbox is the cause of."""
    if isinstance(exception, OSError) and any(
        frame.f_code.co_filename == "<lib>/socket.py" for frame, _ in traceback.walk_tb(exception.__traceback__)
    ):
        return "the sandbox has no network: a native worker has"
    if isinstance(exception, ModuleNotFoundError) and str(exception.name).partition(".")[0] in sys.stdlib_module_names:
        return 'the sandbox has no such part of the standard library: a native worker has, with `exec` and `isolation = "worker"`'
    for kind, part, what in ADVICE:
        if isinstance(exception, kind) and part in text:
            return what
    return ""


def describe(exception: BaseException, fault: int = TASK, *, in_sandbox: bool = False) -> Failure:
    """Returns what there is to say of an exception that ended an item."""
    permanent = isinstance(exception, Permanent) or (isinstance(exception, CallError) and not exception.transient)
    after = exception.after_ms if isinstance(exception, (CallError, Transient)) else None
    reason = text_of(exception)
    if fault != TASK and not isinstance(exception, (MemoryError, RecursionError)):
        permanent, reason = True, f"{FAULTS[fault]}: {exception}"
    chain = causes(exception)
    for cause in chain:
        reason += f"; caused by {text_of(cause)}"
    if in_sandbox and (told := advice(exception, reason)):
        reason += f" ({told})"
    trace = ""
    if fault != ITEM and not isinstance(exception, OWN):
        trace = lines_of(exception.__traceback__)
        for cause in chain:
            if lines := lines_of(cause.__traceback__):
                trace += f"\ncaused by {text_of(cause)}\n{lines}"
    return reason, trace.strip("\n"), permanent, after
