import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "./host.mjs";

const config = { meanings: { eg: "for example" } };

test("a word is explained from the state", () => {
  const eg = run("task_name", { word: "eg" }, config);
  assert.deepEqual(eg, [{ word: "eg", meaning: "for example" }]);
  assert.deepEqual(run("task_name", { word: "xy" }, config), [
    { word: "xy", meaning: null },
  ]);
});

test("a state needs meanings", () => {
  assert.throws(() => run("task_name", { word: "eg" }), /has no meanings/);
});
