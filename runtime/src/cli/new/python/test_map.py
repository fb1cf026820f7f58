import unittest

from pcluster import Permanent, testing

from tasks import Measured, Word, task_name


class Tests(unittest.TestCase):
    def test_letters_are_counted(self) -> None:
        self.assertEqual(task_name(Word("größe")), Measured("größe", 5))

    def test_a_word_that_is_too_long_fails_for_good(self) -> None:
        with testing.context(config={"most": 4}), self.assertRaises(Permanent):
            task_name(Word("größe"))
