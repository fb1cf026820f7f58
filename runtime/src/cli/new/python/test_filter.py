import unittest

from pcluster import testing

from tasks import Word, task_name


class Tests(unittest.TestCase):
    def test_long_words_are_kept(self) -> None:
        with testing.context(config={"least": 5}):
            self.assertEqual(task_name(Word("größe")), Word("größe"))
            self.assertIsNone(task_name(Word("maß")))
