import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "pcluster/testing";

import { task_name } from "./tasks.js";

test("a text is split into its words", async () => {
  const outputs = await run(task_name, { text: "An ÜBER-long text" });
  const words = outputs.map((output) => output.word);
  assert.deepEqual(words, ["an", "über", "long", "text"]);
  assert.deepEqual(await run(task_name, { text: " " }), []);
});
