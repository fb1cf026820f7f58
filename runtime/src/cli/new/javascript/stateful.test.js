import assert from "node:assert/strict";
import { test } from "node:test";

import { Permanent } from "pcluster";
import { run } from "pcluster/testing";

import { load, task_name } from "./tasks.js";

test("a word is explained from the state", async () => {
  const config = { meanings: { eg: "for example" } };
  const known = await run(task_name, { word: "eg" }, { config });
  assert.deepEqual(known, [{ word: "eg", meaning: "for example" }]);
  const unknown = await run(task_name, { word: "xy" }, { config });
  assert.deepEqual(unknown, [{ word: "xy", meaning: null }]);
});

test("a state needs meanings", () => {
  assert.throws(() => load({}), Permanent);
});
