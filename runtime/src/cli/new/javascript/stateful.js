import { Permanent, task } from "pcluster";

/** Makes the state, once. Each item starts with a copy of it, which costs nothing. */
export function load(config) {
  if (config.meanings === undefined) {
    throw new Permanent("the `config` of the stage has no meanings");
  }
  return new Map(Object.entries(config.meanings));
}

/** Adds the meaning of a word. */
export const task_name = task(
  ({ word }, meanings) => {
    return { word, meaning: meanings.get(word) ?? null };
  },
  { init: load },
);
