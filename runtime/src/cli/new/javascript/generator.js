import { task } from "pcluster";

/** Splits a text into its words. */
export const task_name = task(function* (item) {
  for (const [word] of item.text.matchAll(/[\p{L}\p{N}_]+/gu)) {
    yield { word: word.toLowerCase() };
  }
});
