// Runs the task of this project in tests, as a node of pcluster does: `pcluster build -o tasks.wasm` builds it.

import { readFileSync } from "node:fs";

/** Runs the task on an item. Returns its outputs, or throws with the reason of its failure. */
export function run(task, item, config = {}) {
  const outputs = [];
  let reason = "";
  const bytes = (at, length) =>
    new Uint8Array(plugin.memory.buffer, at, length);
  const context = encode({ config });
  const host = {
    emit: (at, size) =>
      outputs.push(decode({ bytes: bytes(at, size).slice(), at: 0 })),
    fail: (at, length) =>
      (reason = new TextDecoder().decode(bytes(at, length))),
    log: () => {},
    context_len: () => context.length,
    context_read: (to) => bytes(to, context.length).set(context),
  };
  const module = new WebAssembly.Module(
    readFileSync(new URL("tasks.wasm", import.meta.url)),
  );
  const plugin = new WebAssembly.Instance(module, { pcluster_v1: host })
    .exports;
  const encoded = encode(item);
  const at = plugin.pcluster_alloc(encoded.length);
  bytes(at, encoded.length).set(encoded);
  if (plugin[`pcluster_task_${task}`](at, encoded.length) !== 0)
    throw new Error(reason);
  return outputs;
}

/** Writes texts, whole numbers below 2^16 and maps of them as CBOR. */
function encode(value) {
  const head = (type, number) =>
    number < 24
      ? [(type << 5) | number]
      : [(type << 5) | 25, number >> 8, number & 255];
  if (typeof value === "number") return head(0, value);
  if (typeof value === "string") {
    const text = new TextEncoder().encode(value);
    return [...head(3, text.length), ...text];
  }
  const entries = Object.entries(value);
  return [...head(5, entries.length), ...entries.flat().flatMap(encode)];
}

/** Reads what `encode` writes, and null. */
function decode(from) {
  const first = from.bytes[from.at++];
  if (first === 0xf6) return null;
  let number = first & 31;
  if (number >= 24) {
    const width = 1 << (number - 24);
    number = 0;
    for (let left = width; left > 0; left--)
      number = number * 256 + from.bytes[from.at++];
  }
  switch (first >> 5) {
    case 0:
      return number;
    case 3:
      from.at += number;
      return new TextDecoder().decode(
        from.bytes.subarray(from.at - number, from.at),
      );
    default:
      return Object.fromEntries(
        Array.from({ length: number }, () => [decode(from), decode(from)]),
      );
  }
}
