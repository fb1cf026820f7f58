from __future__ import annotations

from dataclasses import dataclass

from pcluster import Permanent, task


@dataclass
class Word:
    """An item."""

    word: str


@dataclass
class Explained:
    """What becomes of it."""

    word: str
    meaning: str | None


def load(config: dict) -> dict[str, str]:
    """Makes the state, once. Each item starts with a copy of it, which costs nothing."""
    if not config.get("meanings"):
        raise Permanent("the `config` of the stage has no meanings")
    return config["meanings"]


@task(init=load)
def task_name(item: Word, meanings: dict[str, str]) -> Explained:
    """Adds the meaning of a word."""
    return Explained(item.word, meanings.get(item.word))
