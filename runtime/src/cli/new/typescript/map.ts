import { context, log, Permanent, task } from "pcluster";

/** An item. */
export interface Word {
  word: string;
}

/** What becomes of it. */
export interface Measured {
  word: string;
  letters: number;
}

/** Counts the letters of a word. */
export const task_name = task(({ word }: Word): Measured => {
  const letters = [...word].length;
  if (letters > (context().config.most ?? Infinity)) {
    // No later attempt can succeed: the item becomes a dead letter at once.
    throw new Permanent(`\`${word}\` is too long`);
  }
  log.info("measuring %s", word);
  return { word, letters };
});
