import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "./host.mjs";

test("a text is split into its words", () => {
  const words = run("task_name", { text: "An ÜBER-long text" });
  assert.deepEqual(words, [
    { word: "an" },
    { word: "über" },
    { word: "long" },
    { word: "text" },
  ]);
  assert.deepEqual(run("task_name", { text: " " }), []);
});
