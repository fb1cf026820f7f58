"""The errors by which a task says what becomes of its item. Any other exception means: try again."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta


class Permanent(Exception):
    """No attempt can succeed: the item becomes a dead letter at once."""


Fatal = Permanent


class Mismatch(Permanent):
    """The item, or the stage's `config`, is not of the type that the task wants."""


class Transient(Exception):
    """Another attempt may succeed.

    `after` says how long it waits, in seconds or as a `timedelta`, in place of the stage's back-off: at most an hour in the sandbox.
    """

    def __init__(self, message: object = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(message)
        self.after = after

    @property
    def after_ms(self) -> int | None:
        """The delay in milliseconds."""
        if self.after is None:
            return None
        seconds = self.after if isinstance(self.after, (int, float)) else self.after.total_seconds()
        return max(0, round(seconds * 1000))


class CallError(Exception):
    """A call of the node has failed. The task may go on; otherwise the item fails as the kind says.

    `kind` is one of `denied`, `invalid`, `not_found`, `timeout`, `too_large`, `unavailable` and `conflict`.
    """

    def __init__(self, kind: str, message: str, *, transient: bool = False, after_ms: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.transient = transient
        self.after_ms = after_ms
