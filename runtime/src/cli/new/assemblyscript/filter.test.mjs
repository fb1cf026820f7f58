import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "./host.mjs";

test("long words are kept", () => {
  assert.deepEqual(run("task_name", { word: "größe" }, { least: 5 }), [
    { word: "größe" },
  ]);
  assert.deepEqual(run("task_name", { word: "maß" }, { least: 5 }), []);
});
