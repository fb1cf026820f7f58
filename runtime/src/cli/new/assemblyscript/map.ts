import { DONE, Reader, Writer, config, fail, log } from "./pcluster";

export { pcluster_alloc } from "./pcluster";

/** Counts the letters of a word. */
export function pcluster_task_task_name(item: usize, size: u32): i32 {
  const word = new Reader(item, item + size).textOf("word");
  if (word === null) return fail("`word` is not a text");
  const letters = countLetters(word);
  if (letters > config().integerOf("most", i64.MAX_VALUE)) {
    // No later attempt can succeed: the item becomes a dead letter at once.
    return fail("`" + word + "` is too long");
  }
  log("measuring " + word);
  new Writer()
    .map(2)
    .text("word")
    .text(word)
    .text("letters")
    .integer(letters)
    .emit();
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
