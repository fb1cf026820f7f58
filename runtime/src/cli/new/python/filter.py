from __future__ import annotations

from dataclasses import dataclass

from pcluster import context, task


@dataclass
class Word:
    """An item."""

    word: str


@task
def task_name(item: Word) -> Word | None:
    """Keeps long words, and drops the others."""
    least = context().config.get("least", 1)
    return item if len(item.word) >= least else None
