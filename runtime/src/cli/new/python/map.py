from dataclasses import dataclass

from pcluster import Permanent, context, log, task


@dataclass
class Word:
    """An item."""

    word: str


@dataclass
class Measured:
    """What becomes of it."""

    word: str
    letters: int


@task
def task_name(item: Word) -> Measured:
    """Counts the letters of a word."""
    most = context().config.get("most")
    if most is not None and len(item.word) > most:
        # No later attempt can succeed: the item becomes a dead letter at once.
        raise Permanent(f"`{item.word}` is too long")
    log.info("measuring %s", item.word)
    return Measured(item.word, len(item.word))
