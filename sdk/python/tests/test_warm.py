"""What the examples of a task leave behind: functions that do the same, with code of their own."""

import sys
import types
import unittest
from unittest import mock

with mock.patch.dict(sys.modules, {"pcluster_engine": types.SimpleNamespace(fill_holes=lambda: None)}):
    from pcluster import _warm


def adder(number):
    def add(item):
        return sum(each + number for each in item)

    return add


def pairs(item):
    for each in item:
        yield each, (lambda: each * 2)()


class Warm(unittest.TestCase):
    def run_examples(self, task, items):
        renewed = []
        runs = 0
        for item in _warm.examples(items, task, lambda: renewed.append(None)):
            list(task(item)) if task is pairs else task(item)
            runs += 1
        return runs, len(renewed)

    def test_functions_do_the_same_with_code_of_their_own(self):
        add = adder(3)
        before = add.__code__, adder.__code__, pairs.__code__
        runs, renewed = self.run_examples(add, [[1, 2], [3]])
        self.assertEqual((add([1, 2]), adder(4)([1]), list(pairs([5]))), (9, 5, [(5, 10)]))
        self.assertIsNot(add.__code__, before[0])
        self.assertIs(adder.__code__.co_consts[adder.__code__.co_consts.index(add.__code__)], add.__code__)
        self.assertIs(pairs.__code__, before[2], "it did not run")
        self.assertTrue(6 <= runs <= 66 and runs == 2 * renewed, (runs, renewed))
        self.run_examples(pairs, [[1, 2]])
        self.assertEqual(list(pairs([5])), [(5, 10)])
        self.assertIsNot(pairs.__code__, before[2])

    def test_a_task_without_examples_is_put_together_as_well(self):
        add = adder(1)
        before = add.__code__
        self.assertEqual(self.run_examples(add, [])[0], 0)
        self.assertIsNot(add.__code__, before)
        self.assertEqual(add([1]), 2)

    def test_nothing_is_watched_after_an_example_that_fails(self):
        examples = _warm.examples([1], adder, lambda: None)
        next(examples)
        self.assertIsNotNone(sys.gettrace())
        examples.close()
        self.assertIsNone(sys.gettrace())
