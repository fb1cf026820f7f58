import { context, task } from "pcluster";

/** An item. */
export interface Word {
  word: string;
}

/** Keeps long words, and drops the others. */
export const task_name = task((item: Word): Word | undefined => {
  const least = context().config.least ?? 1;
  return [...item.word].length >= least ? item : undefined;
});
