import unittest

from pcluster import Permanent

from tasks import Explained, Word, load, task_name


class Tests(unittest.TestCase):
    def test_a_word_is_explained_from_the_state(self) -> None:
        meanings = load({"meanings": {"eg": "for example"}})
        self.assertEqual(task_name(Word("eg"), meanings), Explained("eg", "for example"))
        self.assertEqual(task_name(Word("xy"), meanings), Explained("xy", None))

    def test_a_state_needs_meanings(self) -> None:
        with self.assertRaises(Permanent):
            load({})
