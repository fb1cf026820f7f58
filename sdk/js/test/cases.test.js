// What values mean: the cases that all SDKs share, and those of JavaScript.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { read, write } from "../src/cbor.js";
import { run } from "../src/testing.js";
import { task } from "../src/task.js";

const echo = task((item) => item);

function cases(file) {
  return JSON.parse(readFileSync(new URL(`../../cases/${file}.json`, import.meta.url), "utf8"));
}

const bytesOf = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hexOf = (bytes) => Buffer.from(bytes).toString("hex");

/** Returns the one form of items with the same meaning: a number that JavaScript writes as an integer is one. */
const meaning = (bytes) => hexOf(write(read(bytes)));

for (const file of ["values", "javascript"]) {
  test(`values mean what ${file}.json says`, async (context) => {
    for (const { name, in: item, out } of cases(file)) {
      await context.test(name, () => {
        if (out === null) {
          assert.throws(() => write(read(bytesOf(item))));
        } else {
          assert.equal(hexOf(write(read(bytesOf(item)))), meaning(bytesOf(out)));
        }
      });
    }
  });
}

test("the meaning of a number does not change on its way through a test", async () => {
  for (const number of [0, -0, 1, -1, 1.5, 2 ** 53 - 1, -(2 ** 53) + 1, 2n ** 53n, -(2n ** 64n) - 1n, Number.NaN, Number.NEGATIVE_INFINITY, 1e300]) {
    const [output] = await run(echo, number);
    assert.ok(Object.is(output, number), String(number));
  }
});
