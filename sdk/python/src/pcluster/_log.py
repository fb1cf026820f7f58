"""Lines of the log, each with its level."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

#: The levels of pcluster.
ERROR, WARN, INFO, DEBUG, TRACE = range(1, 6)
NAMES = {ERROR: "error", WARN: "warn", INFO: "info", DEBUG: "debug", TRACE: "trace"}


def to_stderr(level: int, text: str) -> None:
    print(f"{NAMES[level]:5} {text}", file=sys.stderr)


class Log:
    """Writes lines to the log: `log.info("greeting %s", name)`, as `logging` does, and without importing it."""

    #: Takes a level and a text. The sandbox and the worker set their own.
    write = staticmethod(to_stderr)

    def _line(self, level: int, message: object, arguments: tuple[object, ...]) -> None:
        text = str(message)
        self.write(level, text % arguments if arguments else text)

    def error(self, message: object, *arguments: object) -> None:
        """Something went wrong."""
        self._line(ERROR, message, arguments)

    def warning(self, message: object, *arguments: object) -> None:
        """Something may be wrong."""
        self._line(WARN, message, arguments)

    def info(self, message: object, *arguments: object) -> None:
        """Something worth knowing."""
        self._line(INFO, message, arguments)

    def debug(self, message: object, *arguments: object) -> None:
        """Details for debugging a task."""
        self._line(DEBUG, message, arguments)

    def trace(self, message: object, *arguments: object) -> None:
        """Every step of a task."""
        self._line(TRACE, message, arguments)


log = Log()


def level_of(number: int) -> int:
    """Returns the level for one of `logging`."""
    for least, level in ((40, ERROR), (30, WARN), (20, INFO), (10, DEBUG)):
        if number >= least:
            return level
    return TRACE


def adopt(logging: ModuleType) -> None:
    """Leads the records of `logging` to the log, with their levels, whether or not the author calls `basicConfig`."""

    class Handler(logging.Handler):
        def emit(self, record: Any) -> None:
            try:
                log.write(level_of(record.levelno), self.format(record))
            except Exception:
                self.handleError(record)

    plain = logging.basicConfig

    def basic_config(**options: Any) -> None:
        if not {"filename", "stream", "handlers"} & options.keys():
            options["handlers"] = [Handler()]
            # The line has its level and time already.
            options.setdefault("format", "%(message)s")
        plain(**options)

    logging.basicConfig = basic_config
    # What is used as long as there is no handler.
    logging.lastResort = Handler()
    logging.root.setLevel(logging.INFO)
