"""Calls of the node, answered by a test."""

import unittest

from pcluster import CallError, http, kv, objects, publish, secrets, task, testing
from pcluster._failure import describe


@task(calls=["http", "kv"])
def rate(currency: str):
    cache = kv.Bucket("rates", ttl=60)
    entry = cache.get(currency)
    if entry is None:
        answer = http.get(f"https://example.com/{currency}", headers={"Authorization": http.Secret("token").bearer()})
        entry = kv.Entry(answer.raise_for_status().body, 0)
        cache.put(currency, entry.value)
    return float(entry.text)


class Calls(unittest.TestCase):
    def test_requests_and_responses_are_those_of_the_abi(self):
        asked = []

        def answer(name, request):
            asked.append((name, request))
            if name == "kv.get":
                raise CallError("not_found", "no such entry")
            return {"http": {"status": 200, "body": b"0.92", "headers": [["etag", b"1"]]}, "kv.put": {"revision": 1}}[name]

        with testing.calls(answer):
            self.assertEqual(testing.run(rate, "USD"), [0.92])
        headers = [["Authorization", {"secret": "token", "prefix": "Bearer "}]]
        self.assertEqual(
            asked,
            [
                ("kv.get", {"bucket": "rates", "key": "USD"}),
                ("http", {"url": "https://example.com/USD", "method": "GET", "headers": headers}),
                ("kv.put", {"bucket": "rates", "key": "USD", "value": b"0.92", "ttl_ms": 60000}),
            ],
        )

    def test_pages_objects_messages_and_secrets(self):
        answers = {
            "kv.keys": [{"keys": ["a", "b"], "more": True}, {"keys": ["c"], "more": False}],
            "objects.get": [{"data": b"x", "size": 1, "digest": "d"}],
            "publish": [{}, {"stream": "S", "sequence": 2, "duplicate": False}],
            "secrets.get": [{"value": b"s"}],
        }
        asked = []

        def answer(name, request):
            asked.append(request)
            return answers[name].pop(0)

        with testing.calls(answer):
            self.assertEqual(list(kv.Bucket("b").keys()), ["a", "b", "c"])
            self.assertEqual(objects.Store("s").get("n", start=1).data, b"x")
            publish.publish("s.a", "text", {"A": "b"})
            self.assertEqual(publish.publish_and_wait("s.a").sequence, 2)
            self.assertEqual(secrets.reveal("n"), b"s")
        self.assertEqual(asked[1], {"bucket": "b", "after": "b"})
        self.assertEqual(asked[2], {"store": "s", "name": "n", "from": 1})
        self.assertEqual(asked[3], {"subject": "s.a", "payload": b"text", "headers": [["A", "b"]]})

    def test_a_failed_call_decides_what_becomes_of_the_item(self):
        with self.assertRaises(CallError) as denied:
            kv.Bucket("b").get("k")
        self.assertEqual(describe(denied.exception)[2:], (True, None))
        for status, kind, transient in [(404, "invalid", False), (409, "conflict", True), (503, "unavailable", True)]:
            with self.assertRaises(CallError) as raised:
                http.Response(status, retry_after_ms=5).raise_for_status()
            self.assertEqual((raised.exception.kind, raised.exception.transient), (kind, transient))
            self.assertEqual(describe(raised.exception)[2:], (not transient, 5))
