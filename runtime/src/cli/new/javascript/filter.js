import { context, task } from "pcluster";

/** Keeps long words, and drops the others. */
export const task_name = task((item) => {
  const least = context().config.least ?? 1;
  return [...item.word].length >= least ? item : undefined;
});
