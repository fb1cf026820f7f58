"""Measures an app of Celery: one worker with a prefork process for each processor takes what was fed before.

`python3 celery_stand.py MODULE ITEMS` imports the module, whose `feed` sends the items and whose tasks store one result for each.
CELERY_REDIS is the address of a server that keeps nothing on disk, and CELERY_SERVER its process. Prints the seconds until every result
is stored, and the processor time of the server and of the worker.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import redis

FOLDER = os.path.dirname(os.path.abspath(__file__))


def processor_seconds(process):
    """Returns the time of a process and of its living children."""
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    with open(f"/proc/{process}/task/{process}/children") as children:
        return own + sum(processor_seconds(child) for child in children.read().split())


def measure(module, items, worker):
    server = os.environ["CELERY_SERVER"]
    module.app.control.cancel_consumer("celery", reply=True, timeout=5)
    module.feed(items)
    results = redis.Redis.from_url(module.app.conf.result_backend)
    before = processor_seconds(server), processor_seconds(worker)
    begun = time.monotonic()
    module.app.control.add_consumer("celery")
    while results.dbsize() < items:
        time.sleep(0.005)
    seconds = time.monotonic() - begun
    after = processor_seconds(server), processor_seconds(worker)
    assert results.dbsize() == items
    return {"seconds": seconds, "server": after[0] - before[0], "worker": after[1] - before[1]}


def main(name, items):
    processes = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "celery", "-A", name, "worker", "-P", "prefork", "-c", str(processes), "-l", "error"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=FOLDER)
    try:
        module = importlib.import_module(name)
        while not module.app.control.ping(timeout=0.5):
            if worker.poll() is not None:
                raise SystemExit("the worker of Celery has ended")
        print(json.dumps(measure(module, items, worker.pid)))
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
