"""A task of Celery that squares integers. Other values of `worker_prefetch_multiplier`, up to 256, are not faster."""

import os

from celery import Celery

URL = os.environ["CELERY_REDIS"]
app = Celery("square", broker=URL + "/0", backend=URL + "/1")


@app.task
def square(x):
    return x * x


def feed(items):
    for x in range(items):
        square.delay(x)
