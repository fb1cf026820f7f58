"""The client against a server with a node. An end-to-end test of the repository runs this, and says by the environment what is where.

PCLUSTER_NATS is the server, PROGRAM the program `pcluster`, and PROBE a plugin with tasks to try.
"""

import asyncio
import json
import os
import tempfile
import threading
import time
import unittest
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

from pcluster import _cbor
from pcluster.client import AsyncClient, Client, ClientError, Item, NotFound, TimedOut

URL, PROGRAM, PROBE = (os.environ.get(name, "") for name in ("PCLUSTER_NATS", "PROGRAM", "PROBE"))
CASES = Path(__file__).parents[2] / "cases"


def manifest(name, tasks, more=""):
    stages = "".join(f'[[stage]]\nname = "{task}"\nplugin = "{PROBE}"\n{more}\n' for task in tasks)
    return f'name = "{name}"\nversion = "1.0"\n{stages}'


class Against(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = Client(URL)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def deployed(self, *tasks, name=None, more=""):
        """Deploys a chain of its own for the test."""
        name = name or self.id().rpartition(".")[2].removeprefix("test_")[:50]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "chain.toml").write_text(manifest(name, tasks, more))
            deployment = self.client.deploy(folder, program=PROGRAM)
            self.assertEqual((deployment.chain, deployment.version, deployment.is_new), (name, "1.0", True))
            self.assertFalse(self.client.deploy(folder, program=PROGRAM).is_new)
        return self.client.chain(name)

    def test_an_item_comes_back_with_its_id_and_headers(self):
        chain = self.deployed("echo")
        self.assertEqual(chain.feed({"a": [1, None]}, id="x.7#%", headers={"Shop": "nord"}).items, 1)
        again = chain.feed({"a": "another"}, id="x.7#%")
        self.assertEqual((again.items, again.duplicates), (0, 1))
        (result,) = chain.pull(1, timeout=None)
        self.assertEqual((result.value, result.id, result.headers), ({"a": [1, None]}, "x.7#%", {"Shop": "nord"}))
        self.assertEqual((result.version, result.revision, result.node, result.topic), ("1.0", 1, "a", None))
        chain.wait()
        self.assertEqual(chain.pull(), [])

    def test_many_items_are_packed_and_each_comes_back_once(self):
        chain = self.deployed("echo")
        self.assertEqual(chain.feed_all(iter(range(5_000))).items, 5_000)
        values = [result.value for result in chain.results(until_empty=True)]
        self.assertEqual(sorted(values), list(range(5_000)))
        self.assertEqual(chain.status().unfinished, 0)

    def test_items_of_a_message_have_ids_of_their_own(self):
        chain = self.deployed("echo")
        chain.feed_all(["a", "b", Item("c", id="own"), "d"])
        found = {result.value: result.id for result in chain.results(until_empty=True)}
        self.assertEqual(found["c"], "own")
        self.assertEqual(found["b"], f"{found['a']}#1")
        self.assertNotIn("#", found["d"])

    def test_values_mean_what_they_mean_in_tasks(self):
        chain = self.deployed("echo")
        wanted = {}
        for file in ("values.json", "python.json"):
            for case in json.loads((CASES / file).read_text()):
                if case["refused"] is None:
                    wanted[f"{file} {case['name']}"] = case
        fed = [Item(_cbor.loads(bytes.fromhex(case["in"])), id=name) for name, case in wanted.items()]
        chain.feed_all(fed)
        for result in chain.results(until_empty=True):
            self.assertEqual(_cbor.dumps(result.value).hex(), wanted.pop(result.id)["out"])
        self.assertEqual(wanted, {})
        moment = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        values = [1 << 70, -0.0, Decimal("1.10"), uuid.UUID(int=7), b"\0\xff", moment, "ß" * 300_000]
        for value in values:
            chain.feed(value)
            (result,) = chain.pull(1, timeout=None)
            self.assertEqual(result.value, value)
        for value in ({1, 2}, datetime(2026, 1, 1), "\ud800", "x" * (2 << 20)):
            with self.assertRaises(ClientError):
                chain.feed(value)

    def test_a_loop_that_ends_early_leaves_the_rest_to_others(self):
        chain = self.deployed("echo")
        chain.feed_all(range(100))
        chain.wait()
        taken = []
        for result in chain.results():
            if len(taken) == 40:
                # This one is not taken, since the loop does not go on.
                break
            taken.append(result.value)
        del result
        taken += [result.value for result in chain.results(10)]
        self.assertEqual(len(taken), 50)
        rest = [result.value for result in chain.results(until_empty=True)]
        self.assertEqual(sorted(taken + rest), list(range(100)))

    def test_topics_are_pulled_apart(self):
        chain = self.deployed("echo")
        chain.feed_all(["a1", "a2"], topic="ada")
        chain.feed("b", topic="bob")
        chain.feed("none")
        chain.wait()
        self.assertEqual([result.topic for result in chain.pull(1, topic="bob", timeout=None)], ["bob"])
        self.assertEqual({result.value for result in chain.pull(2, topic="ada", timeout=None)}, {"a1", "a2"})
        self.assertEqual({result.value for result in chain.results(until_empty=True)}, {"a1", "a2", "b", "none"})

    def test_dead_letters_say_what_failed(self):
        chain = self.deployed("fatal")
        chain.feed({"n": 1}, id="first", headers={"Shop": "süd"})
        chain.wait()
        (letter,) = chain.dead()
        self.assertEqual((letter.value, letter.id, letter.stage), ({"n": 1}, "first", "fatal"))
        self.assertEqual((letter.failure, letter.attempts, letter.headers), ("error", 1, {"Shop": "süd"}))
        self.assertTrue(letter.reason)
        status = chain.status()
        self.assertEqual((status.dead, status.results, status.is_open), (1, 0, True))
        self.assertEqual([(stage.stage, stage.queued) for stage in status.stages], [("fatal", 0)])
        chain.retry(letter, program=PROGRAM)
        chain.wait()
        (again,) = chain.dead()
        self.assertGreater(again.number, letter.number)
        self.assertEqual(list(chain.dead(stage="other")), [])
        chain.reset(everything=True, program=PROGRAM)
        self.assertEqual((list(chain.dead()), chain.status().dead), ([], 0))

    def test_what_one_chain_gives_may_be_fed_to_another_meanwhile(self):
        chain = self.deployed("echo")
        other = self.deployed("echo", name=chain.name + "_too")
        chain.feed_all(range(300))
        fed = other.feed_all(Item(result.value + 1_000, id=str(result.value)) for result in chain.results(300))
        self.assertEqual(fed.items, 300)
        found = {result.value: result.id for result in other.results(until_empty=True)}
        self.assertEqual(found, {number + 1_000: str(number) for number in range(300)})
        self.assertEqual(chain.pull(), [])

    def test_limits_of_time_are_kept_and_said(self):
        chain = self.deployed("sleep", more='config = { millis = 600000 }\ntimeout = "1h"')
        chain.feed("slow")
        with self.assertRaisesRegex(TimedOut, "still has 1 messages after 0.2 s"):
            chain.wait(timeout=0.2)
        self.assertEqual(chain.pull(timeout=0.1), [])
        self.assertEqual([result for result in chain.results(timeout=0.1)], [])
        chain.reset(program=PROGRAM)
        self.assertEqual(chain.status().unfinished, 0)

    def test_mistakes_are_told(self):
        chain = self.deployed("echo")
        typo = self.client.chain(chain.name[:-1])
        for mistake in (lambda: typo.feed(1), typo.status, lambda: list(typo.dead()), typo.pull, typo.wait):
            with self.assertRaisesRegex(NotFound, f"did you mean `{chain.name}`"):
                mistake()
        wrong = [{"headers": {"Nats-Msg-Id": "x"}}, {"headers": {"a b": "x"}}, {"headers": {"a": "x\nb: y"}}]
        wrong += [{"id": "pcluster.1"}, {"id": ""}, {"id": "a\r\nb: c"}, {"id": "x" * 2_000}, {"topic": "a b"}]
        for arguments in wrong:
            with self.subTest(arguments), self.assertRaises(ClientError):
                chain.feed(1, **arguments)
        with self.assertRaisesRegex(ClientError, "no program `not-there`"):
            self.client.deploy(".", program="not-there")
        with self.assertRaisesRegex(NotFound, "chain.toml"):
            self.client.deploy("/nowhere", program=PROGRAM)
        with self.assertRaisesRegex(ClientError, "cannot connect to nats://127.0.0.1:1"):
            Client("nats://127.0.0.1:1", connect_timeout=1)
        with self.assertRaisesRegex(ClientError, "not connected"):
            AsyncClient(URL).wire  # noqa: B018

    def test_a_client_may_be_used_from_several_threads(self):
        chain = self.deployed("echo")
        threads = [threading.Thread(target=lambda at=at: chain.feed_all(range(at, at + 50))) for at in range(0, 200, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({result.value for result in chain.results(until_empty=True)}, set(range(200)))

    def test_asyncio_has_the_same(self):
        chain = self.deployed("echo")

        async def source():
            for number in range(100):
                yield number
                await asyncio.sleep(0)

        async def run():
            async with AsyncClient(URL) as client:
                self.assertIn(chain.name, await client.chains())
                own = client.chain(chain.name)
                self.assertEqual((await own.feed("one", id="one")).items, 1)
                fed, found = await asyncio.gather(own.feed_all(source(), pack=10), own.pull(101, timeout=None))
                self.assertEqual((fed.items, len(found)), (100, 101))
                await own.wait(timeout=60)
                self.assertEqual((await own.status()).results, 0)
                self.assertEqual([letter async for letter in own.dead()], [])
                async with own.results(until_empty=True) as results:
                    self.assertEqual([result async for result in results], [])

        asyncio.run(run())

    def test_a_result_that_is_in_use_for_long_goes_to_nobody_else(self):
        # Whether the client tells the server, and not how long that lasts.
        from pcluster.client import _pull

        chain = self.deployed("echo")
        before, _pull.ALIVE = _pull.ALIVE, 0.05
        self.addCleanup(setattr, _pull, "ALIVE", before)
        chain.feed("one")
        results = chain.results()
        self.assertEqual(next(results).value, "one")
        told = self.client._client.wire.nats.stats["out_msgs"]
        deadline = time.monotonic() + 60
        while self.client._client.wire.nats.stats["out_msgs"] < told + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertGreaterEqual(self.client._client.wire.nats.stats["out_msgs"], told + 3)
        results.close()
        self.assertEqual([result.value for result in chain.results(until_empty=True)], ["one"])


if __name__ == "__main__":
    unittest.main()
