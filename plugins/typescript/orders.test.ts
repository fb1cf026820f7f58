import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "pcluster/testing";
import { clean, price, split } from "./orders.ts";

test("an order is cleaned", () => {
  const order = { id: "1", lines: [{ article: " Tea ", count: 2 }, { article: "milk", count: 0 }] };
  assert.deepEqual(clean(order), { id: "1", lines: [{ article: "tea", count: 2 }] });
  assert.equal(clean({ id: "2", lines: [] }), undefined);
});

test("each line is an item", async () => {
  const order = { id: "1", lines: [{ article: "tea", count: 2 }, { article: "milk", count: 1 }] };
  assert.deepEqual(await run(split, order), [
    { order: "1", article: "tea", count: 2 },
    { order: "1", article: "milk", count: 1 },
  ]);
});

test("a line gets its price, and one without a price fails for good", async () => {
  const config = { prices: { tea: 110 } };
  const line = { order: "1", article: "tea", count: 2 };
  assert.deepEqual(await run(price, line, { config }), [{ ...line, price: 220 }]);
  await assert.rejects(run(price, { ...line, article: "cake" }, { config, stage: "price" }), {
    name: "Permanent",
    message: "there is no price of cake in price",
  });
});
