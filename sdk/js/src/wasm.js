// Makes a plugin of the engine and of files. The engine's code is not looked at: only sections around it change.

const PAGE = 65536;
const PAGES_MAX = 32768;
const [CUSTOM, IMPORT, MEMORY, EXPORT, DATA, DATA_COUNT] = [0, 2, 5, 7, 11, 12];

/** The most tasks of a plugin. */
export const TASKS_MAX = 32;

/** How the entries of the engine are named, and what the exports of a task are named by. */
const ENTRIES = { pcluster_run_: "pcluster_task:", pcluster_each_: "pcluster_each:", pcluster_load_: "pcluster_init:" };
/** Imports that only a plugin may have whose tasks list calls, and others of the same type in their place. Nothing calls them then. */
const WITHOUT_CALLS = {
  "pcluster_v1.call": ["wasi_snapshot_preview1", "fd_write"],
  "pcluster_v1.call_read": ["pcluster_v1", "context_read"],
};

/** The file is no engine, or one of another version. */
export class NotAnEngine extends Error {}

function unsigned(number) {
  const bytes = [];
  for (; number > 0x7f; number = Math.floor(number / 128)) {
    bytes.push((number % 128) | 0x80);
  }
  return Buffer.from([...bytes, number]);
}

/** Returns a number below 2^31 as a signed one. */
function signed(number) {
  const bytes = [];
  for (; number > 0x3f; number = Math.floor(number / 128)) {
    bytes.push((number % 128) | 0x80);
  }
  return Buffer.from([...bytes, number]);
}

class Reader {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  number() {
    let [number, scale] = [0, 1];
    for (;;) {
      const byte = this.bytes[this.at];
      this.at += 1;
      number += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) {
        return number;
      }
    }
  }

  take(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  name() {
    return this.take(this.number()).toString();
  }

  rest() {
    return this.bytes.subarray(this.at);
  }
}

function name(text) {
  return Buffer.concat([unsigned(Buffer.byteLength(text)), Buffer.from(text)]);
}

function* sections(module) {
  if (module.subarray(0, 4).toString("latin1") !== "\0asm") {
    throw new NotAnEngine("the engine of this pcluster package is no WebAssembly; install the package anew");
  }
  const reader = new Reader(module, 8);
  while (reader.at < module.length) {
    const [number] = reader.take(1);
    yield [number, reader.take(reader.number())];
  }
}

function section(number, content) {
  return Buffer.concat([Buffer.from([number]), unsigned(content.length), content]);
}

/** Returns files as one piece, as the engine reads them: a zero ends each, as its parser wants. */
function archive(files) {
  const word = (number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(number);
    return bytes;
  };
  const entries = [...files].sort(([a], [b]) => (a < b ? -1 : 1));
  const parts = entries.flatMap(([path, content]) => {
    const [named, bytes] = [Buffer.from(path), Buffer.from(content)];
    return [word(named.length), word(bytes.length), named, bytes, Buffer.from([0])];
  });
  return Buffer.concat([word(entries.length), ...parts]);
}

/** Returns a plugin with these files and tasks. `slot` is where the engine looks for the place of the files. */
export function link(engine, slot, files, tasks) {
  const data = archive(files);
  const hasCalls = tasks.some((task) => task.calls?.length);
  const out = [engine.subarray(0, 8)];
  let place = 0;
  for (let [number, content] of sections(engine)) {
    if (number === IMPORT && !hasCalls) {
      content = imported(content);
    } else if (number === MEMORY) {
      [content, place] = grown(content, data.length);
    } else if (number === EXPORT) {
      content = exported(content, tasks);
    } else if (number === DATA_COUNT) {
      content = unsigned(new Reader(content).number() + 2);
    } else if (number === DATA) {
      const reader = new Reader(content);
      const count = reader.number();
      const where = Buffer.alloc(8);
      where.writeUInt32LE(place);
      where.writeUInt32LE(data.length, 4);
      content = Buffer.concat([unsigned(count + 2), reader.rest(), segment(place, data), segment(slot, where)]);
    }
    out.push(section(number, content));
  }
  const lines = tasks.map((task) => `${JSON.stringify(task)}\n`).join("");
  out.push(section(CUSTOM, Buffer.concat([name("pcluster"), Buffer.from(lines)])));
  return Buffer.concat(out);
}

/** Returns the import section without the calls of the node. */
function imported(content) {
  const reader = new Reader(content);
  const count = reader.number();
  const out = [unsigned(count)];
  for (let index = 0; index < count; index++) {
    const [module, field] = [reader.name(), reader.name()];
    const start = reader.at;
    if (reader.take(1)[0] !== 0) {
      throw new NotAnEngine("the engine imports something else than functions");
    }
    reader.number();
    const [otherModule, otherField] = WITHOUT_CALLS[`${module}.${field}`] ?? [module, field];
    out.push(name(otherModule), name(otherField), content.subarray(start, reader.at));
  }
  return Buffer.concat(out);
}

/** Returns the memory section with room for more bytes at the end of the memory, and where that is. */
function grown(content, size) {
  const reader = new Reader(content);
  const count = reader.number();
  const [flags] = reader.take(1);
  const pages = reader.number();
  if (count !== 1 || flags !== 0) {
    throw new NotAnEngine("the engine has another kind of memory");
  }
  const needed = pages + Math.ceil(size / PAGE);
  if (needed > PAGES_MAX) {
    throw new RangeError(`the files of the plugin have ${size >> 20} MiB, which is too much`);
  }
  return [Buffer.concat([unsigned(1), Buffer.from([0]), unsigned(needed)]), pages * PAGE];
}

/** Returns the export section with the first entries named after the tasks. */
function exported(content, tasks) {
  const reader = new Reader(content);
  const count = reader.number();
  const out = [unsigned(count)];
  for (let index = 0; index < count; index++) {
    let named = reader.name();
    const start = reader.at;
    reader.take(1);
    reader.number();
    const prefix = Object.keys(ENTRIES).find((each) => named.startsWith(each));
    const task = prefix && tasks[Number(named.slice(prefix.length))];
    if (task) {
      named = ENTRIES[prefix] + task.name;
    }
    out.push(name(named), content.subarray(start, reader.at));
  }
  return Buffer.concat(out);
}

/** Returns an active data segment. */
function segment(place, data) {
  return Buffer.concat([Buffer.from([0, 0x41]), signed(place), Buffer.from([0x0b]), unsigned(data.length), data]);
}
