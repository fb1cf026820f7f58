"""The native worker, started as a node starts it."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from pcluster import _cbor

SOURCE = Path(__file__).parents[1] / "src"

TASKS = """
import logging
from pcluster import Permanent, Transient, context, log, task

def load(config):
    return config.get("word", "Hello")

@task(init=load)
def greet(name: str, word):
    log.info("greeting %s", name)
    logging.getLogger("a").warning("careful")
    print("printed")
    if name == "never":
        raise Permanent("never")
    if name == "later":
        raise Transient("later", after=2)
    if name == "wrong":
        yield {1, 2}
    if name == "exit":
        raise SystemExit(3)
    yield f"{word}, {name}!"
    yield [context().id, context().attempt, context().stage]

@task
def other(item):
    return item
"""


class Worker(unittest.TestCase):
    def run_items(self, items, **environment):
        """Returns what a worker writes for these items, and what it prints."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = Path(folder.name) / "tasks_of_a_test.py"
        file.write_text(TASKS)
        (items_out, items_in), (answers_out, answers_in) = os.pipe(), os.pipe()
        for end in (items_out, answers_in):
            os.set_inheritable(end, True)
        own = {"PCLUSTER_WORKER_IN": str(items_out), "PCLUSTER_WORKER_OUT": str(answers_in), "PYTHONPATH": str(SOURCE)}
        process = subprocess.Popen(
            [sys.executable, "-m", "pcluster.worker", str(file)],
            env={**os.environ, **own, **environment},
            pass_fds=(items_out, answers_in),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(items_out)
        os.close(answers_in)
        with open(items_in, "w") as given:
            for request, item in enumerate(items):
                data = base64.b64encode(_cbor.dumps(item)).decode()
                given.write(json.dumps({"item": {"request": request, "id": f"i{request}", "attempt": 1, "cbor": data}}) + "\n")
        with open(answers_out) as answers:
            said = [json.loads(line) for line in answers]
        printed, errors = process.communicate()
        return said, printed, errors

    def test_items_are_answered_as_in_the_sandbox(self):
        items = ["Ada", "never", "later", "wrong", "exit", 7]
        said, printed, errors = self.run_items(
            items, PCLUSTER_STAGE="greet", PCLUSTER_CONFIG='{"word": "Hi"}', PCLUSTER_CHAIN="c", PCLUSTER_VERSION="1"
        )
        self.assertEqual(said[0], {"hello": {"version": 1, "name": "greet", "items": "cbor"}}, errors)
        outputs = [_cbor.loads(base64.b64decode(each["output"]["cbor"])) for each in said if "output" in each]
        self.assertEqual(outputs, ["Hi, Ada!", ["i0", 1, "greet"]])
        self.assertEqual([each["done"]["request"] for each in said if "done" in each], [0])
        told = [each["error"] for each in said if "error" in each]
        self.assertEqual(told[0], {"request": 1, "message": "never", "permanent": True})
        self.assertEqual(told[1], {"request": 2, "message": "later", "retry_after_ms": 2000})
        self.assertIn("SystemExit: 3", told[3]["message"])
        self.assertEqual(told[4]["message"], "the item is not of type `str`: int instead of str")
        logged = [(each["log"]["level"], each["log"]["message"]) for each in said if "log" in each]
        self.assertEqual(logged[:2], [("info", "greeting Ada"), ("warn", "careful")])
        self.assertEqual(printed.splitlines(), ["printed"] * 5)

    def test_a_file_with_several_tasks_needs_a_choice(self):
        said, _, errors = self.run_items([], PCLUSTER_STAGE="third")
        self.assertEqual(said, [])
        self.assertIn("the file has no task `third`; it has greet, other", errors)
