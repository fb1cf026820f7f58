// The three typical stages in TypeScript. BullMQ runs this file, too.

import { task } from "pcluster";

interface Item {
  id: number;
  text: string;
  words?: number;
}

const examples: Item[] = [
  { id: 1, text: "a chain is a named list" },
  { id: 2, text: "of stages", words: 2 },
];

/** Splits a record into two with half of the text each. */
export const halve = task(
  function* ({ id, text }: Item) {
    const middle = Math.floor(text.length / 2);
    yield { id: id * 2, text: text.slice(0, middle) };
    yield { id: id * 2 + 1, text: text.slice(middle) };
  },
  { examples },
);

/** Puts the text in upper case and counts its words. */
export const count_words = task(
  ({ id, text }: Item): Item => ({ id, text: text.toUpperCase(), words: text.split(" ").filter(Boolean).length }),
  { examples },
);

/** Keeps the records whose id is even. */
export const keep_even = task((record: Item) => (record.id % 2 === 0 ? record : undefined), { examples });
