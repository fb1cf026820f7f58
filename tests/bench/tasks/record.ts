// Tasks in TypeScript that the benchmark of the engine measures.

import { task } from "pcluster";

/** Greets a person. */
export const hello = task(({ name }: { name: string }) => ({ text: `Hello, ${name}!` }), { examples: [{ name: "Bob" }] });

interface Order {
  id: number;
  customer: string;
  articles: string[];
  total: number;
  paid: boolean;
  note: string;
  zone: string;
}

const order: Order = {
  id: 4711,
  customer: "ada@example.com",
  articles: ["tea", "milk", "sugar"],
  total: 12.75,
  paid: true,
  note: "please ring twice, the bell is hard to hear from the garden behind the house",
  zone: "eu-west-1",
};

/** Reads all of a record, and writes six fields. */
export const record = task(
  ({ id, customer, articles, total, paid, note }: Order) => ({
    id: id + 1,
    customer: customer.toUpperCase(),
    articles: articles.length,
    total: total * 2,
    paid: !paid,
    note,
  }),
  { examples: [order] },
);

const wider = { ...order, street: "Long Lane 1", city: "Bath", code: "BA1", country: "GB", weight: 2.5, gift: false };

/** Reads a record of thirteen fields, and writes as many. */
export const wide = task((item: typeof wider) => ({ ...item, id: item.id + 1, city: item.city.toUpperCase() }), {
  examples: [wider],
});
