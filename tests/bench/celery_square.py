"""Measures Celery: one worker with two prefork processes squares integers, over a Redis server that keeps nothing on disk.

All tasks wait in the queue before the worker is told to take them. Prints the seconds until every result is stored, and the
processor time of the server and of the worker. Needs `pip install celery redis` and `redis-server`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import redis
from celery import Celery

URL = os.environ.get("SQUARE_REDIS", "")
app = Celery("square", broker=URL + "/0", backend=URL + "/1")
# Other values of `worker_prefetch_multiplier`, up to 256, are not faster.


@app.task
def square(x):
    return x * x


def processor_seconds(process):
    """Returns the time of a process and of its living children."""
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    with open(f"/proc/{process}/task/{process}/children") as children:
        return own + sum(processor_seconds(child) for child in children.read().split())


def measure(items, server, worker):
    app.control.cancel_consumer("celery", reply=True, timeout=5)
    for x in range(items):
        square.delay(x)
    results = redis.Redis.from_url(URL + "/1")
    before = processor_seconds(server), processor_seconds(worker)
    begun = time.monotonic()
    app.control.add_consumer("celery")
    while results.dbsize() < items:
        time.sleep(0.005)
    seconds = time.monotonic() - begun
    after = processor_seconds(server), processor_seconds(worker)
    print(json.dumps({"seconds": seconds, "server": after[0] - before[0], "worker": after[1] - before[1]}))


def main(items):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["SQUARE_REDIS"] = f"redis://127.0.0.1:{port}"
    server = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    worker = [sys.executable, "-m", "celery", "-A", "celery_square", "worker", "-P", "prefork", "-c", "2", "-l", "error"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": os.path.dirname(os.path.abspath(__file__))}
    processes = []
    try:
        processes.append(subprocess.Popen(server, **quiet))
        while subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).returncode != 0:
            time.sleep(0.05)
        processes.append(subprocess.Popen(worker, **quiet))
        # Imported anew, with the address of the server.
        import celery_square

        while not celery_square.app.control.ping(timeout=0.5):
            pass
        celery_square.measure(items, *(process.pid for process in processes))
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
