import re
from collections.abc import Iterator
from dataclasses import dataclass

from pcluster import task


@dataclass
class Line:
    """An item."""

    text: str


@dataclass
class Word:
    """One of the items that come of it."""

    word: str


@task
def task_name(item: Line) -> Iterator[Word]:
    """Splits a text into its words."""
    for word in re.findall(r"\w+", item.text):
        yield Word(word.lower())
