// Runs a plugin on this machine, to ask it for its tasks.

import { webcrypto } from "node:crypto";
import { BuildError } from "./build_error.js";

const [SUCCESS, NOT_SUPPORTED] = [0, 58];

/** Returns the functions that a plugin imports. What it gives and says goes to `heard`. */
function imports(module, memory, heard) {
  const bytes = (at, length) => new Uint8Array(memory().buffer, at, length);
  const text = (at, length) => Buffer.from(bytes(at, length)).toString();
  const view = () => new DataView(memory().buffer);
  const known = {
    emit: (at, length) => heard.push(text(at, length)),
    fail: (at, length) => {
      heard.reason = text(at, length);
    },
    log: (_level, at, length) => process.stderr.write(`${text(at, length)}\n`),
    context_len: () => 1,
    context_read: (at) => bytes(at, 1).set([0xa0]),
    next: () => -1,
    clock_time_get: (clock, _precision, at) => {
      const nanos = clock === 0 ? BigInt(Date.now()) * 1_000_000n : process.hrtime.bigint();
      view().setBigUint64(at, nanos, true);
      return SUCCESS;
    },
    random_get: (at, length) => {
      webcrypto.getRandomValues(bytes(at, length));
      return SUCCESS;
    },
    environ_sizes_get: (count, size) => {
      view().setUint32(count, 0, true);
      view().setUint32(size, 0, true);
      return SUCCESS;
    },
    environ_get: () => SUCCESS,
  };
  const found = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    found[from] ??= {};
    found[from][name] = known[name] ?? (() => NOT_SUPPORTED);
  }
  return found;
}

function start(bytes, heard) {
  const module = new WebAssembly.Module(bytes);
  const instance = new WebAssembly.Instance(module, imports(module, () => instance.exports.memory, heard));
  instance.exports._initialize?.();
  return instance.exports;
}

/** Returns where the engine looks for the place of its files. */
export function slotOf(engine) {
  const slot = start(engine, []).pcluster_files;
  if (slot === undefined) {
    throw new BuildError("the engine of this pcluster package is of another version; install the package anew");
  }
  return slot.value;
}

/** Returns the tasks of a plugin, as it describes them. */
export function ask(plugin) {
  const heard = [];
  try {
    start(plugin, heard).pcluster_describe();
  } catch (error) {
    throw new BuildError(`the module ends the engine: ${error.message}`);
  }
  if (heard.reason !== undefined) {
    throw new BuildError(heard.reason);
  }
  return JSON.parse(heard[0]);
}
