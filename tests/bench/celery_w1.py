"""The three typical stages under Celery, with the functions of tasks/w1.py as they are. Each half of a record is a task of its own.

Celery's own settings stand: a task is acknowledged before it runs, so one that runs when its worker ends is lost.
"""

import os
import sys

from celery import Celery
from celery.exceptions import Ignore

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tasks"))

import w1

URL = os.environ["CELERY_REDIS"]
app = Celery("w1", broker=URL + "/0", backend=URL + "/1")

WORDS = (
    "a chain is a named list of stages and a stage is a place in it where a task runs on one item after the other while the items wait "
    "in a queue that the server keeps for all the nodes which share the work between them however many there are and whichever of them "
    "comes or goes in the meantime"
)


@app.task(ignore_result=True)
def halve(record):
    for half in w1.halve(record):
        count_words.delay(half)


@app.task(ignore_result=True)
def count_words(record):
    keep_even.delay(w1.count_words(record))


@app.task
def keep_even(record):
    kept = w1.keep_even(record)
    if kept is None:
        # Nothing is stored of it.
        raise Ignore
    return kept


def feed(items):
    for id in range(items):
        halve.delay({"id": id, "text": WORDS[: 190 + id * 37 % 96]})
