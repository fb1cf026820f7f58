import { DONE, FATAL, Reader, Writer, config, fail } from "./pcluster";

export { pcluster_alloc } from "./pcluster";

/** The state: a large table in practice. */
let meanings = new Map<string, string>();

/** Makes the state, once. Each item starts with a copy of it, which costs nothing. */
export function pcluster_init_task_name(): i32 {
  const found = config().field("meanings");
  if (found === null) return fail("the `config` of the stage has no meanings");
  meanings = found.texts();
  return DONE;
}

/** Adds the meaning of a word. */
export function pcluster_task_task_name(item: usize, size: u32): i32 {
  if (meanings.size === 0 && pcluster_init_task_name() !== DONE) return FATAL;
  const word = new Reader(item, item + size).textOf("word");
  if (word === null) return fail("`word` is not a text");
  const explained = new Writer().map(2).text("word").text(word).text("meaning");
  if (meanings.has(word)) explained.text(meanings.get(word)).emit();
  else explained.null().emit();
  return DONE;
}
