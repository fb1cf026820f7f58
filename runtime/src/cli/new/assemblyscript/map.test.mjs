import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "./host.mjs";

test("letters are counted", () => {
  assert.deepEqual(run("task_name", { word: "größe" }), [
    { word: "größe", letters: 5 },
  ]);
});

test("a word that is too long fails for good", () => {
  assert.throws(
    () => run("task_name", { word: "größe" }, { most: 4 }),
    /`größe` is too long/,
  );
});
