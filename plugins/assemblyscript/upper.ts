// A task in AssemblyScript, which speaks the plugin ABI itself: it turns a text into one in upper case.

@external("pcluster_v1", "emit") declare function hostEmit(item: usize, size: u32): void;
@external("pcluster_v1", "fail") declare function hostFail(reason: usize, length: u32): void;
@external("pcluster_v1", "log") declare function hostLog(level: i32, line: usize, length: u32): void;

const DONE: i32 = 0;
const FATAL: i32 = 2;
const INFO: i32 = 3;

/** The item that the host hands over. */
let item = new ArrayBuffer(0);

export function pcluster_alloc(size: u32): usize {
  item = new ArrayBuffer(size);
  return changetype<usize>(item);
}

export function pcluster_task_upper(pointer: usize, size: u32): i32 {
  const text = readText(pointer, size);
  if (text === null) return fail("the item is not a text");
  log("a text of " + text.length.toString() + " letters");
  emitText(text.toUpperCase());
  return DONE;
}

/** Returns the text that an item is. Null if it is none, or comes in pieces. */
function readText(pointer: usize, size: u32): string | null {
  const head = load<u8>(pointer);
  if (head >> 5 !== 3 || (head & 31) > 26) return null;
  let length: u32 = head & 31;
  let start: u32 = 1;
  if (length >= 24) {
    const width: u32 = 1 << (length - 24);
    length = 0;
    for (; start <= width; start++) length = (length << 8) | load<u8>(pointer + start);
  }
  return start + length === size ? String.UTF8.decodeUnsafe(pointer + start, length) : null;
}

/** Emits a text. */
function emitText(text: string): void {
  const bytes = String.UTF8.encode(text);
  const length = <u32>bytes.byteLength;
  const output = new ArrayBuffer(5 + length);
  const to = changetype<usize>(output);
  store<u8>(to, 0x7a);
  store<u32>(to + 1, bswap<u32>(length));
  memory.copy(to + 5, changetype<usize>(bytes), length);
  hostEmit(to, 5 + length);
}

function log(line: string): void {
  const bytes = String.UTF8.encode(line);
  hostLog(INFO, changetype<usize>(bytes), bytes.byteLength);
}

/** Fails the item for good. */
function fail(reason: string): i32 {
  const bytes = String.UTF8.encode(reason);
  hostFail(changetype<usize>(bytes), bytes.byteLength);
  return FATAL;
}

/** What the compiler calls when a check fails: the reason, and a trap. */
function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const place = (file ? file : "?") + ":" + line.toString() + ":" + column.toString();
  fail((message ? message : "aborted") + " at " + place);
  unreachable();
}
