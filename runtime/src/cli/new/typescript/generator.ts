import { task } from "pcluster";

/** An item. */
export interface Line {
  text: string;
}

/** One of the items that come of it. */
export interface Word {
  word: string;
}

/** Splits a text into its words. */
export const task_name = task(function* (item: Line): Generator<Word> {
  for (const [word] of item.text.matchAll(/[\p{L}\p{N}_]+/gu)) {
    yield { word: word.toLowerCase() };
  }
});
