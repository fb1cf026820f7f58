"""Tasks as plain functions, and run as a node runs them."""

import unittest
from datetime import timedelta

from pcluster import NULL, Permanent, Transient, WithTopic, context, task, testing
from pcluster._failure import describe
from pcluster._run import Fault


@task
def twice(number: int) -> int:
    return number * 2


@task
def longer(text: str) -> str | None:
    return text if len(text) >= context().config.get("least", 3) else None


@task
def words(text: str):
    yield from text.split()
    yield None


def load(config):
    return dict(config["labels"])


@task(init=load, examples=["pea"])
def label(word: str, labels: dict) -> str | None:
    return labels.get(word)


@task
def about(item):
    here = context()
    return [here.chain, here.attempt, here.topic, here.config, item]


@task
def to_topics(item):
    yield WithTopic("a", item)
    yield WithTopic(None, NULL)


class Tasks(unittest.TestCase):
    def test_a_task_is_a_function(self):
        self.assertEqual(twice(2), 4)
        self.assertEqual(list(words("a b")), ["a", "b", None])
        self.assertEqual(label("pea", {"pea": "seed"}), "seed")
        with testing.context(config={"least": 1}, attempt=2):
            self.assertEqual((longer("a"), context().attempt), ("a", 2))

    def test_a_task_runs_as_a_node_runs_it(self):
        self.assertEqual(testing.run(twice, 21), [42])
        self.assertEqual(testing.run(longer, "ab"), [])
        self.assertEqual(testing.run(words, "a b"), ["a", "b", None])
        self.assertEqual(testing.run(label, "pea", config={"labels": {"pea": "seed"}}), ["seed"])
        self.assertEqual(testing.run(label, "leaf", config={"labels": {}}), [])
        self.assertEqual(testing.run(about, 1, topic="t"), [["test", 1, "t", {}, 1]])
        self.assertEqual(testing.run(to_topics, 1), [1, None])

    def test_a_task_that_cannot_be_called_is_refused(self):
        with self.assertRaisesRegex(Permanent, "takes 0 arguments; it gets the item"):

            @task
            def nothing():
                pass

        with self.assertRaisesRegex(Permanent, "it gets the item and the state"):

            @task(init=load)
            def stateless(item):
                pass


def fail(error):
    """Returns what is told of an error."""
    try:
        raise error
    except BaseException as raised:
        return describe(raised)


class Failures(unittest.TestCase):
    def test_an_error_says_what_becomes_of_the_item(self):
        self.assertEqual(fail(Permanent("never")), ("never", "", True, None))
        self.assertEqual(fail(Transient("later", after=1.5)), ("later", "", False, 1500))
        self.assertEqual(fail(Transient("later", after=timedelta(minutes=1)))[3], 60_000)
        reason, trace, permanent, after = fail(KeyError("price"))
        self.assertEqual((reason, permanent, after), ("KeyError: 'price'", False, None))
        self.assertIn("test_tasks.py", trace)
        self.assertIn("raise error", trace)
        self.assertEqual(fail(SystemExit(3))[0], "SystemExit: 3")

    def test_causes_are_told_with_their_lines(self):
        try:
            try:
                int("x")
            except ValueError as error:
                raise Transient("no price") from error
        except Transient as error:
            reason, trace, *_ = describe(error)
        self.assertEqual(reason, "no price; caused by ValueError: invalid literal for int() with base 10: 'x'")
        self.assertEqual(trace, "")
        try:
            try:
                int("x")
            except ValueError:
                raise RuntimeError("no price")  # noqa: B904
        except RuntimeError as error:
            reason, trace, *_ = describe(error)
        self.assertTrue(reason.startswith("RuntimeError: no price; caused by ValueError: "), reason)
        self.assertIn("caused by ValueError", trace)
        self.assertIn('int("x")', trace)

    def test_a_long_trace_and_a_long_text_are_cut(self):
        def deep(left):
            if left:
                deep(left - 1)
            raise ValueError("x" * 10_000)

        try:
            deep(300)
        except ValueError as error:
            reason, trace, *_ = describe(error)
        self.assertLess(len(reason), 5000)
        self.assertIn("calls before", trace)
        self.assertLess(len(trace.splitlines()), 80)

    def test_faults_of_item_and_output_are_permanent(self):
        for item, says in [(b"\xff", "the item cannot be read: not valid CBOR")]:
            with self.assertRaises(Fault) as raised:
                list(testing.outputs_of(twice, item))
            reason, _, permanent, _ = describe(raised.exception.__cause__, raised.exception.number)
            self.assertEqual((reason, permanent), (says, True))
        with self.assertRaises(Fault) as raised:
            list(testing.outputs_of(lambda item: {1, 2}, b"\x01"))
        reason, _, permanent, _ = describe(raised.exception.__cause__, raised.exception.number)
        self.assertTrue(reason.startswith("the output cannot be written: a value of type set cannot be an output"), reason)
        self.assertTrue(permanent)
