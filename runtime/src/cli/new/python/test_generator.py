import unittest

from tasks import Line, task_name


def words(text: str) -> list[str]:
    return [word.word for word in task_name(Line(text))]


class Tests(unittest.TestCase):
    def test_a_text_is_split_into_its_words(self) -> None:
        self.assertEqual(words("An ÜBER-long text"), ["an", "über", "long", "text"])
        self.assertEqual(words(" "), [])
