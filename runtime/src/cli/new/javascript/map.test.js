import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "pcluster/testing";

import { task_name } from "./tasks.js";

test("letters are counted", async () => {
  const outputs = await run(task_name, { word: "größe" });
  assert.deepEqual(outputs, [{ word: "größe", letters: 5 }]);
});

test("a word that is too long fails for good", async () => {
  const config = { most: 4 };
  const outputs = run(task_name, { word: "größe" }, { config });
  await assert.rejects(outputs, {
    name: "Permanent",
    message: "`größe` is too long",
  });
});
