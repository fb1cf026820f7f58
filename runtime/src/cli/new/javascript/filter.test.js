import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "pcluster/testing";

import { task_name } from "./tasks.js";

test("long words are kept", async () => {
  const config = { least: 5 };
  const kept = await run(task_name, { word: "größe" }, { config });
  assert.deepEqual(kept, [{ word: "größe" }]);
  const dropped = await run(task_name, { word: "maß" }, { config });
  assert.deepEqual(dropped, []);
});
