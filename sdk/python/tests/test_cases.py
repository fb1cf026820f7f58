"""The cases of `sdk/cases`, by the codec of workers and tests."""

import json
import os
import time
import unittest
from pathlib import Path
from unittest import mock

from pcluster import _cbor

CASES = Path(__file__).parents[2] / "cases"


class Cases(unittest.TestCase):
    def test_a_value_means_the_same_in_every_language(self):
        self.addCleanup(time.tzset)
        for zone, file in [("UTC", "values.json"), ("Asia/Kolkata", "values.json"), ("EST5EDT", "python.json")]:
            with mock.patch.dict(os.environ, TZ=zone):
                time.tzset()
            for case in json.loads((CASES / file).read_text()):
                with self.subTest(case["name"], zone=zone):
                    data = bytes.fromhex(case["in"])
                    if case["refused"] is None:
                        self.assertEqual(_cbor.dumps(_cbor.loads(data)).hex(), case["out"])
                    else:
                        with self.assertRaises((ValueError, TypeError)):
                            _cbor.loads(data)

    def test_a_large_text_goes_through(self):
        text = "ß" * (1 << 20)
        self.assertEqual(_cbor.loads(_cbor.dumps(text)), text)
