import { context, log, Permanent, task } from "pcluster";

/** Counts the letters of a word. */
export const task_name = task(({ word }) => {
  const letters = [...word].length;
  if (letters > (context().config.most ?? Infinity)) {
    // No later attempt can succeed: the item becomes a dead letter at once.
    throw new Permanent(`\`${word}\` is too long`);
  }
  log.info("measuring %s", word);
  return { word, letters };
});
