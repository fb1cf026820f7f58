import { type Config, Permanent, task } from "pcluster";

/** An item. */
export interface Word {
  word: string;
}

/** What becomes of it. */
export interface Explained {
  word: string;
  meaning: string | null;
}

/** The state: a large table in practice. */
export type Meanings = Map<string, string>;

/** Makes the state, once. Each item starts with a copy of it, which costs nothing. */
export function load(config: Config): Meanings {
  if (config.meanings === undefined) {
    throw new Permanent("the `config` of the stage has no meanings");
  }
  return new Map(Object.entries<string>(config.meanings));
}

/** Adds the meaning of a word. */
export const task_name = task(
  ({ word }: Word, meanings: Meanings): Explained => {
    return { word, meaning: meanings.get(word) ?? null };
  },
  { init: load },
);
