#!/usr/bin/env node
// Makes a plugin of tasks: `pcluster-build [DIR|FILE] -o OUT.wasm`. The exit status is 3 if esbuild is needed and missing, and 1 for any
// other error.
//
// The plugin is the engine of this package with the author's modules in its memory. Plain JavaScript goes in as it is; TypeScript and
// packages are bundled by esbuild first. Then the plugin itself is asked for its tasks, so that a mistake shows here and not on a node.

import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { collect, entryOf } from "./sources.js";
import { BuildError, NoBundler } from "./build_error.js";
import { docsOf } from "./docs.js";
import { ask, slotOf } from "./ask.js";
import { link, NotAnEngine, TASKS_MAX } from "./wasm.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const ENGINE = join(HERE, "..", "engine.wasm");

/** The SDK's own modules in the sandbox. */
const SDK = [
  ...["calls", "context", "errors", "failure", "index", "inspect", "log", "maps", "task", "values"],
  ...["sandbox", "globals", "places", "timers", "text", "clone", "url"].map((name) => `sandbox/${name}`),
];

function engine() {
  try {
    return readFileSync(ENGINE);
  } catch (error) {
    throw new BuildError(`this pcluster package has no engine (${error.code}); in its repository, \`make javascript\` builds it`);
  }
}

/** Returns the plugin of a folder or file, and the author's files that were read. */
export async function build(path, entry) {
  const start = entryOf(resolve(path), entry);
  const { entry: main, files, read } = await collect(start);
  for (const name of SDK) {
    files.set(`pcluster/${name}.js`, readFileSync(join(HERE, `${name}.js`)));
  }
  const bytes = engine();
  const slot = slotOf(bytes);
  const asked = "pcluster/schemas.js";
  files.set(asked, readFileSync(join(HERE, "schemas.js")));
  const linked = (tasks) => {
    files.set("pcluster.json", JSON.stringify({ entry: main, tasks: tasks.map((task) => task.name) }));
    return link(bytes, slot, files, tasks);
  };
  const tasks = ask(linked([]));
  files.delete(asked);
  if (tasks.length === 0) {
    throw new BuildError(`${start.file} exports no task; write \`export const NAME = task((item) => ...)\` (import { task } from "pcluster")`);
  }
  if (tasks.length > TASKS_MAX) {
    throw new BuildError(`${tasks.length} tasks in one plugin; the most are ${TASKS_MAX}`);
  }
  const docs = docsOf(readFileSync(join(start.folder, start.file), "utf8"));
  for (const task of tasks) {
    task.doc ??= docs.get(task.name);
  }
  return { plugin: linked(tasks), read };
}

/** Writes a file whole or not at all. */
function write(path, bytes) {
  mkdirSync(dirname(path), { recursive: true });
  const work = `${path}.${process.pid}`;
  try {
    writeFileSync(work, bytes);
    renameSync(work, path);
  } catch (error) {
    rmSync(work, { force: true });
    throw error;
  }
}

const USAGE = "usage: pcluster-build [DIR|FILE] -o OUT.wasm [--entry FILE] [--list FILE]";

async function main() {
  const options = { output: { type: "string", short: "o" }, entry: { type: "string" }, list: { type: "string" }, help: { type: "boolean", short: "h" } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  if (values.output === undefined || positionals.length > 1) {
    throw new BuildError(USAGE);
  }
  const path = positionals[0] ?? ".";
  statSync(path);
  const { plugin, read } = await build(path, values.entry);
  write(values.output, plugin);
  if (values.list !== undefined) {
    write(values.list, JSON.stringify(read));
  }
}

function isExpected(error) {
  return error instanceof BuildError || error instanceof NotAnEngine || error.code !== undefined || error instanceof RangeError;
}

if (process.argv[1] !== undefined && import.meta.url.endsWith("/build.mjs") && /(build\.mjs|pcluster-build)$/.test(process.argv[1])) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`error: ${isExpected(error) ? error.message : error.stack}\n`);
    process.exitCode = error instanceof NoBundler ? 3 : 1;
  }
}
