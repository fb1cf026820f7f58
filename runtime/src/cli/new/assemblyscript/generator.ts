import { DONE, Reader, Writer, fail } from "./pcluster";

export { pcluster_alloc } from "./pcluster";

/** Splits a text into its words. */
export function pcluster_task_task_name(item: usize, size: u32): i32 {
  const text = new Reader(item, item + size).textOf("text");
  if (text === null) return fail("`text` is not a text");
  for (let start = 0; start < text.length; start++) {
    let end = start;
    while (end < text.length && isOfWord(text.charCodeAt(end))) end++;
    if (end > start) emitWord(text.slice(start, end).toLowerCase());
    start = end;
  }
  return DONE;
}

function emitWord(word: string): void {
  new Writer().map(1).text("word").text(word).emit();
}

/** Returns true for a letter or digit of ASCII, and all that is not ASCII. */
function isOfWord(code: i32): bool {
  const isDigit = code >= 48 && code <= 57;
  const isLetter = (code | 32) >= 97 && (code | 32) <= 122;
  return isDigit || isLetter || code >= 128;
}
