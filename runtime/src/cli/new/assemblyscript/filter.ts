import { DONE, Reader, Writer, config, fail } from "./pcluster";

export { pcluster_alloc } from "./pcluster";

/** Keeps long words, and drops the others. */
export function pcluster_task_task_name(item: usize, size: u32): i32 {
  const word = new Reader(item, item + size).textOf("word");
  if (word === null) return fail("`word` is not a text");
  // A task that emits nothing drops its item.
  if (countLetters(word) < config().integerOf("least", 1)) return DONE;
  new Writer().map(1).text("word").text(word).emit();
  return DONE;
}

/** Returns the number of letters, of which some are two units of the text. */
function countLetters(text: string): i64 {
  let letters: i64 = 0;
  for (let at = 0; at < text.length; at++) {
    letters += i64((text.charCodeAt(at) & 0xfc00) !== 0xdc00);
  }
  return letters;
}
