// Calls of the node, answered by a test.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Bucket, CallError, http, publish, publishAndWait, reveal, Secret, Store, task } from "../src/index.js";
import { calls, run } from "../src/testing.js";

const rate = task(
  (currency) => {
    const cache = new Bucket("rates", { ttl: 60 });
    const entry = cache.get(currency);
    if (entry !== undefined) {
      return Number(entry.text());
    }
    const answer = http.get(`https://example.com/${currency}`, { headers: { Authorization: new Secret("token").bearer() } });
    cache.put(currency, answer.throwForStatus().body);
    return answer.json();
  },
  { calls: ["http", "kv"] },
);

const bytes = (text) => new TextEncoder().encode(text);

test("requests and responses are those of the ABI", async () => {
  const asked = [];
  const answer = (name, request) => {
    asked.push([name, request]);
    if (name === "kv.get") {
      throw new CallError("not_found", "no such entry");
    }
    return { http: { status: 200, body: bytes("0.92"), headers: [["etag", bytes("1")]] }, "kv.put": { revision: 1 } }[name];
  };
  assert.deepEqual(await calls(answer, () => run(rate, "USD")), [0.92]);
  const headers = [["Authorization", { secret: "token", prefix: "Bearer " }]];
  assert.deepEqual(asked, [
    ["kv.get", { bucket: "rates", key: "USD" }],
    ["http", { url: "https://example.com/USD", method: "GET", headers }],
    ["kv.put", { bucket: "rates", key: "USD", value: bytes("0.92"), ttl_ms: 60000 }],
  ]);
});

test("pages, objects, messages and secrets", async () => {
  const answers = {
    "kv.keys": [{ keys: ["a", "b"], more: true }, { keys: ["c"], more: false }],
    "objects.get": [{ data: bytes("x"), size: 1, digest: "d" }],
    publish: [{}, { stream: "S", sequence: 2, duplicate: false }],
    "secrets.get": [{ value: bytes("s") }],
  };
  await calls(
    (name) => answers[name].shift(),
    () => {
      assert.deepEqual([...new Bucket("b").keys()], ["a", "b", "c"]);
      assert.deepEqual(new Store("s").get("n", { from: 1 })?.data, bytes("x"));
      publish("s.a", "text", { headers: { A: "b" } });
      assert.equal(publishAndWait("s.a").sequence, 2);
      assert.deepEqual(reveal("n"), bytes("s"));
    },
  );
  assert.throws(() => http.get("https://example.com"), { name: "CallError", kind: "denied" });
});

test("a status that may pass is tried again", async () => {
  const statuses = [[404, "invalid", false], [409, "conflict", true], [429, "unavailable", true], [503, "unavailable", true]];
  for (const [status, kind, transient] of statuses) {
    const send = () => http.post("https://example.com", { json: { a: 1 } }).throwForStatus();
    await assert.rejects(calls(() => ({ status, retry_after_ms: 2000 }), send), { kind, transient, after: 2 });
  }
});
