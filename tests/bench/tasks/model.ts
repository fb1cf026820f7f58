// A task in TypeScript with a package that many use, which the benchmark of the engine measures.

import { task } from "pcluster";
import { z } from "zod";

const Order = z.object({
  id: z.number().int(),
  customer: z.string().email(),
  articles: z.array(z.string()),
  total: z.number(),
  paid: z.boolean(),
  note: z.string(),
  zone: z.string(),
});

const example = {
  id: 4711,
  customer: "ada@example.com",
  articles: ["tea", "milk", "sugar"],
  total: 12.75,
  paid: true,
  note: "please ring twice, the bell is hard to hear from the garden behind the house",
  zone: "eu-west-1",
};

/** Checks a record with a schema of zod, and writes six fields. */
export const model = task(
  (item: unknown) => {
    const { id, customer, articles, total, paid, note } = Order.parse(item);
    return { id: id + 1, customer: customer.toUpperCase(), articles: articles.length, total: total * 2, paid: !paid, note };
  },
  { examples: [example] },
);
