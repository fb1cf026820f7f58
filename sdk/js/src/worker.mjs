#!/usr/bin/env node
// Runs a task as a native worker: `node worker.mjs FILE [--task NAME]`, with any package of this machine.
//
//     [[stage]]
//     name = "clean"
//     exec = ["node", "node_modules/pcluster/src/worker.mjs", "clean.ts"]
//     files = ["clean.ts"]
//     isolation = "worker"
//
// Values, outputs and errors mean what they mean in the sandbox. The stage's name chooses the task if the file has several.

import { createReadStream, existsSync, writeSync } from "node:fs";
import { register } from "node:module";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { format, parseArgs } from "node:util";
import { contextOf, source } from "./context.js";
import { describe, IN_TASK } from "./failure.js";
import { LEVELS, sink } from "./log.js";
import { bind, Fault, outputsOf } from "./run.js";
import { tasksOf } from "./task.js";

const OWN = new URL(".", import.meta.url).href;
const NAMES = Object.keys(LEVELS);
const ABOUT = { chain: "CHAIN", version: "VERSION", stage: "STAGE" };

/** Ends this process with a reason. */
function die(reason) {
  process.stderr.write(`${reason}\n`);
  process.exit(1);
}

/** Returns a line of a stack as the author knows it. `undefined` for a line of the SDK or of Node.js. */
function placeOf(frame) {
  const place = /^\s*at (.+)$/.exec(frame)?.[1];
  if (place === undefined || place.includes(OWN) || /\(?node:|<anonymous>/.test(place)) {
    return undefined;
  }
  return place.replace("file://", "").replace(`${process.cwd()}/`, "");
}

/** The pipe to the node. */
class Channel {
  constructor(descriptor) {
    this.descriptor = descriptor;
    this.request = undefined;
  }

  say(messages) {
    const bytes = Buffer.from(messages.map((each) => `${JSON.stringify(each)}\n`).join(""));
    for (let at = 0; at < bytes.length; ) {
      try {
        at += writeSync(this.descriptor, bytes, at);
      } catch (error) {
        // The pipe is full, and somebody has made it one that does not wait.
        if (error.code !== "EAGAIN") {
          throw error;
        }
      }
    }
  }

  log(level, message) {
    this.say([{ log: { message, level: NAMES[level - 1], ...(this.request !== undefined && { request: this.request }) } }]);
  }
}

/** Errors that no task has caught. The item that runs fails by them. */
class Strays {
  constructor() {
    this.fail = (error) => die(String(error?.stack ?? error));
    process.on("uncaughtException", (error) => this.fail(error));
    process.on("unhandledRejection", (error) => this.fail(error));
  }

  /** Waits for something, but no longer than until an error is left over. */
  async during(run) {
    const before = this.fail;
    try {
      return await new Promise((done, fail) => {
        this.fail = fail;
        // What is left over is told once the jobs that wait have run.
        run().then((value) => setImmediate(done, value), fail);
      });
    } finally {
      this.fail = before;
    }
  }
}

async function load(file) {
  const path = resolve(file);
  if (!existsSync(path)) {
    die(`there is no file ${file}; \`files\` in the manifest brings it to the nodes`);
  }
  process.setSourceMapsEnabled(true);
  register(new URL("./worker_hooks.js", import.meta.url));
  return tasksOf(await import(pathToFileURL(path).href));
}

/** Returns the task to run. */
function choose(tasks, name) {
  const wanted = name ?? (tasks.length === 1 ? tasks[0].name : process.env.PCLUSTER_STAGE);
  const task = tasks.find((each) => each.name === wanted);
  if (task === undefined) {
    const names = tasks.map((each) => each.name).join(", ");
    die(names ? `the file has no task \`${wanted}\`; it has ${names}. \`--task NAME\` chooses one` : "the file exports no task");
  }
  return task;
}

function failure(request, error) {
  const [cause, fault] = error instanceof Fault ? [error.cause, error.number] : [error, IN_TASK];
  const { reason, trace, permanent, afterMs } = describe(cause, fault, placeOf);
  const told = { request, message: reason };
  Object.assign(told, permanent && { permanent }, afterMs !== undefined && { retry_after_ms: afterMs }, trace && { trace });
  return { error: told };
}

/** Returns the messages that answer an item. */
async function answer(run, request, bytes, strays) {
  try {
    const messages = await strays.during(async () => {
      const outputs = [];
      for await (const output of outputsOf(run, bytes)) {
        if (output.topic !== undefined) {
          throw new Error("a worker cannot give an output a topic of its own; run the task in the sandbox");
        }
        outputs.push({ output: { request, cbor: Buffer.from(output.bytes).toString("base64") } });
      }
      return outputs;
    });
    return [...messages, { done: { request } }];
  } catch (error) {
    return [failure(request, error)];
  }
}

async function main() {
  const { values, positionals } = parseArgs({ options: { task: { type: "string" } }, allowPositionals: true });
  const { PCLUSTER_WORKER_IN: input, PCLUSTER_WORKER_OUT: output } = process.env;
  if (input === undefined || output === undefined || positionals.length !== 1) {
    die('a node starts this: write `exec = ["node", ".../pcluster/src/worker.mjs", "FILE"]` in a manifest');
  }
  const channel = new Channel(Number(output));
  sink.write = (level, text) => channel.log(level, text);
  for (const [name, level] of Object.entries({ ...LEVELS, log: LEVELS.info })) {
    console[name] = (...parts) => channel.log(level, format(...parts));
  }
  const about = { revision: Number(process.env.PCLUSTER_REVISION ?? 0), config: JSON.parse(process.env.PCLUSTER_CONFIG || "null") };
  for (const [key, name] of Object.entries(ABOUT)) {
    about[key] = process.env[`PCLUSTER_${name}`] ?? "";
  }
  const strays = new Strays();
  let now = {};
  source.current = () => contextOf({ ...about, ...now });
  const { name, run } = choose(await load(positionals[0]), values.task);
  const bound = await bind(run, about.config);
  channel.say([{ hello: { version: 1, name, items: "cbor" } }]);
  for await (const line of createInterface({ input: createReadStream(null, { fd: Number(input) }) })) {
    const { item } = line.trim() === "" ? {} : JSON.parse(line);
    if (item === undefined) {
      continue;
    }
    now = { id: item.id, attempt: item.attempt, ...(item.topic !== undefined && { topic: item.topic }) };
    channel.request = item.request;
    const messages = await answer(bound, item.request, Buffer.from(item.cbor, "base64"), strays);
    channel.request = undefined;
    channel.say(messages);
  }
}

await main();
process.exit(0);
