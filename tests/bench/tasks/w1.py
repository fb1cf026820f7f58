"""The three typical stages in Python. Celery runs this file, too."""

from pcluster import task

EXAMPLES = [{"id": 1, "text": "a chain is a named list"}, {"id": 2, "text": "of stages", "words": 2}]


@task(examples=EXAMPLES)
def halve(record: dict):
    """Splits a record into two with half of the text each."""
    text = record["text"]
    middle = len(text) // 2
    yield {"id": record["id"] * 2, "text": text[:middle]}
    yield {"id": record["id"] * 2 + 1, "text": text[middle:]}


@task(examples=EXAMPLES)
def count_words(record: dict) -> dict:
    """Puts the text in upper case and counts its words."""
    return {"id": record["id"], "text": record["text"].upper(), "words": len(record["text"].split())}


@task(examples=EXAMPLES)
def keep_even(record: dict) -> dict | None:
    """Keeps the records whose id is even."""
    return record if record["id"] % 2 == 0 else None
