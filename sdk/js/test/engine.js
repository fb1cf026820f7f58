// Runs plugins in the WebAssembly of Node.js, as a node does with its own.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { build } from "../src/build.mjs";
import { read, write } from "../src/cbor.js";

/** Calls something with a folder of these files, and removes it afterwards. */
export async function inFolder(files, act) {
  const folder = mkdtempSync(join(tmpdir(), "pcluster-js-"));
  try {
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), content);
    }
    return await act(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Builds the plugin of a folder of these files. */
export function plugin(files) {
  return inFolder(files, async (folder) => (await build(folder)).plugin);
}

/** An instance of a plugin. */
export class Instance {
  #exports;
  #bytes = (at, length) => new Uint8Array(this.#exports.memory.buffer, at, length);
  #text = (at, length) => Buffer.from(this.#bytes(at, length)).toString();

  constructor(bytes, { config = {}, variables = [], now = () => Date.now() } = {}) {
    Object.assign(this, { context: { chain: "c", version: "1", revision: 1, stage: "s", config, id: "an-id", attempt: 2 }, now });
    this.variables = variables.map((each) => Buffer.from(`${each}\0`));
    const module = new WebAssembly.Module(bytes);
    const imports = { pcluster_v1: this.#pcluster(), wasi_snapshot_preview1: this.#wasi() };
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      imports[from][name] ??= () => 58;
    }
    this.#exports = new WebAssembly.Instance(module, imports).exports;
    this.#exports._initialize();
  }

  #pcluster() {
    const packed = () => write(this.context);
    return {
      emit: (at, length) => this.outputs.push(read(this.#bytes(at, length).slice())),
      emit_to: (topic, size, at, length) => this.outputs.push([this.#text(topic, size), read(this.#bytes(at, length).slice())]),
      fail: (at, length) => {
        this.reason = this.#text(at, length);
      },
      log: (level, at, length) => this.lines.push([level, this.#text(at, length)]),
      retry_after: (millis) => {
        this.delay = Number(millis);
      },
      context_len: () => packed().length,
      context_read: (at) => this.#bytes(at, packed().length).set(packed()),
    };
  }

  #wasi() {
    const view = () => new DataView(this.#exports.memory.buffer);
    return {
      clock_time_get: (_clock, _precision, at) => {
        view().setBigUint64(at, BigInt(Math.round(this.now() * 1e6)), true);
        return 0;
      },
      random_get: (at, length) => {
        crypto.getRandomValues(this.#bytes(at, length));
        return 0;
      },
      environ_sizes_get: (count, size) => {
        view().setUint32(count, this.variables.length, true);
        view().setUint32(size, this.variables.reduce((sum, each) => sum + each.length, 0), true);
        return 0;
      },
      environ_get: (pointers, at) => {
        for (const [index, each] of this.variables.entries()) {
          view().setUint32(pointers + 4 * index, at, true);
          this.#bytes(at, each.length).set(each);
          at += each.length;
        }
        return 0;
      },
      poll_oneoff: (events, _out, _count, stored) => {
        view().setUint32(stored, 1, true);
        const nanos = view().getBigUint64(events + 24, true);
        const until = performance.now() + Number(nanos) / 1e6;
        while (performance.now() < until);
        return 0;
      },
    };
  }

  /** Returns the memory. */
  get memory() {
    return new Uint8Array(this.#exports.memory.buffer);
  }

  /** Makes the state of a task. Returns the status. */
  load(name) {
    this.#start();
    return this.#exports[`pcluster_init:${name}`]();
  }

  #start() {
    Object.assign(this, { outputs: [], lines: [], reason: undefined, delay: undefined });
  }

  /** Runs a task on an item in CBOR. Returns the status. */
  runBytes(name, bytes) {
    this.#start();
    const at = this.#exports.pcluster_alloc(bytes.length);
    this.#bytes(at, bytes.length).set(bytes);
    return this.#exports[`pcluster_task:${name}`](at, bytes.length);
  }

  /** Runs a task on an item. Returns its outputs. Throws the reason if it fails. */
  run(name, item) {
    const status = this.runBytes(name, write(item));
    if (status !== 0) {
      throw Object.assign(new Error(this.reason), { status, delay: this.delay });
    }
    return this.outputs;
  }
}
