"""Measures Colmena with ProxyStore: byte strings pass three tasks, each of which gives every byte its successor.

Items and results go through a store of ProxyStore in files, and the queues hold proxies: a Redis server in place of the files was
slower by a quarter. Two processes run the tasks, and a bounded number of items is on its way. Each result becomes a file, which is then
removed. Prints the seconds from the first item to the last result, processor time, and the most memory of any process. Needs `pip
install colmena proxystore`.
"""

import json
import os
import sys
import tempfile
import time

from colmena.queue.python import PipeQueues
from colmena.task_server.local import LocalTaskServer
from proxystore.connectors.file import FileConnector
from proxystore.proxy import extract
from proxystore.store import Store, register_store

# Above this many bytes, an item goes through the store.
THRESHOLD = 100_000
SUCCESSOR = bytes([*range(1, 256), 0])
STAGES = ["first", "second", "third"]


def first(item):
    return item.translate(SUCCESSOR)


def second(item):
    return item.translate(SUCCESSOR)


def third(item):
    return item.translate(SUCCESSOR)


def tree(process):
    """Returns a process and those that it has started."""
    with open(f"/proc/{process}/task/{process}/children") as children:
        return [int(process)] + [each for child in children.read().split() for each in tree(child)]


def processor_seconds(processes):
    seconds = 0
    for process in processes:
        with open(f"/proc/{process}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def peak_mebibytes(processes):
    peaks = []
    for process in processes:
        with open(f"/proc/{process}/status") as status:
            peaks += [int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")]
    return max(peaks)


def save(item, number, folder):
    path = os.path.join(folder, str(number))
    with open(path, "wb") as file:
        file.write(item)
    os.remove(path)


def measure(queues, items, size, at_once, folder):
    content = os.urandom(size - 8)
    begun = time.monotonic()
    sent, saved = 0, set()
    while len(saved) < items:
        while sent < items and sent - len(saved) < at_once:
            queues.send_inputs(sent.to_bytes(8, "little") + content, method=STAGES[0])
            sent += 1
        result = queues.get_result()
        if not result.success:
            raise SystemExit(f"{result.method}: {result.failure_info.exception}")
        stage = STAGES.index(result.method) + 1
        if stage < len(STAGES):
            queues.send_inputs(result.value, method=STAGES[stage])
            continue
        item = extract(result.value)
        number = int.from_bytes(bytes((byte - len(STAGES)) % 256 for byte in item[:8]), "little")
        assert len(item) == size and number not in saved
        saved.add(number)
        save(item, number, folder)
    seconds = time.monotonic() - begun
    assert saved == set(range(items))
    return seconds


def main(items, size, at_once):
    with tempfile.TemporaryDirectory() as folder:
        register_store(Store("large", FileConnector(os.path.join(folder, "store"))))
        queues = PipeQueues(keep_inputs=False, proxystore_name="large", proxystore_threshold=THRESHOLD)
        server = LocalTaskServer(queues, [first, second, third], threads=False, num_workers=2)
        server.start()
        try:
            seconds = measure(queues, items, size, at_once, folder)
            processes = tree(os.getpid())
            used = {"worker": processor_seconds(processes), "worker_mebibytes": peak_mebibytes(processes)}
            left = len(os.listdir(os.path.join(folder, "store")))
        finally:
            queues.send_kill_signal()
            server.join()
    print(json.dumps({"seconds": seconds, "left": left, **used}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) << 20, int(sys.argv[3]))
