// The worker, over the pipes that a node gives it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { read, write } from "../src/cbor.js";
import { inFolder } from "./engine.js";

const WORKER = fileURLToPath(new URL("../src/worker.mjs", import.meta.url));

const TASKS = `
import { context, log, Permanent, task, Transient, WithTopic } from "pcluster";
import { twice } from "./other";

interface Item {
  how: string;
}

export const tried = task(
  async (item: Item, made: { word: string }) => {
    switch (item.how) {
      case "many":
        return (function* () {
          yield twice(1);
          yield 2n ** 64n;
        })();
      case "drop":
        return undefined;
      case "state":
        log.warn("made %s", made.word);
        console.log("by console");
        return [made.word, context().id, context().attempt, context().stage];
      case "permanent":
        throw new Permanent("never");
      case "transient":
        throw new Transient("later", { after: 2 });
      case "topic":
        return new WithTopic("ada", 1);
      case "stray":
        Promise.reject(new Error("stray"));
        return 1;
      case "timer":
        setTimeout(() => {
          throw new Error("in a timer");
        }, 1);
        return new Promise(() => {});
      case "set":
        return new Set();
      default:
        throw new TypeError("bad", { cause: new RangeError("deep") });
    }
  },
  { init: (config) => ({ word: config.word }) },
);
`;

/** Runs items through a worker. Returns all that it says. */
function serve(folder, items, variables = {}) {
  const env = { ...process.env, PCLUSTER_WORKER_IN: "3", PCLUSTER_WORKER_OUT: "4", PCLUSTER_STAGE: "tried", ...variables };
  const stdio = ["ignore", "ignore", "pipe", "pipe", "pipe"];
  const worker = spawn(process.execPath, [WORKER, "tasks.ts"], { cwd: folder, env, stdio });
  let errors = "";
  worker.stderr.on("data", (text) => {
    errors += text;
  });
  const lines = items.map((value, request) => ({
    item: { request, id: `id-${request}`, attempt: 3, cbor: Buffer.from(value instanceof Uint8Array ? value : write(value)).toString("base64") },
  }));
  worker.stdio[3].end(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return new Promise((done) => {
    const said = [];
    createInterface({ input: worker.stdio[4] }).on("line", (line) => said.push(JSON.parse(line)));
    worker.on("close", (code) => done({ said, code, errors }));
  });
}

test("a worker means what the sandbox means", async () => {
  const files = { "tasks.ts": TASKS, "other.ts": "export const twice = (n: number): number => 2 * n;" };
  const hows = ["many", "drop", "state", "permanent", "transient", "topic", "stray", "timer", "set", "cause"];
  const items = [...hows.map((how) => ({ how })), Uint8Array.of(0x62, 0xff, 0x80)];
  const { said, code, errors } = await inFolder(files, (folder) => serve(folder, items, { PCLUSTER_CONFIG: '{"word":"Hi"}' }));
  assert.equal(code, 0, errors);
  assert.deepEqual(said[0], { hello: { version: 1, name: "tried", items: "cbor" } });
  const of = (how, key) => said.filter((each) => each[key]?.request === hows.indexOf(how)).map((each) => each[key]);
  const outputs = (how) => of(how, "output").map((output) => read(Buffer.from(output.cbor, "base64")));
  assert.deepEqual(outputs("many"), [2, 2n ** 64n]);
  assert.deepEqual([outputs("drop"), of("drop", "done").length], [[], 1]);
  assert.deepEqual(outputs("state"), [["Hi", "id-2", 3, "tried"]]);
  assert.deepEqual(of("state", "log").map(({ level, message }) => [level, message]), [["warn", "made Hi"], ["info", "by console"]]);
  const error = (how) => of(how, "error")[0];
  assert.deepEqual([error("permanent").message, error("permanent").permanent], ["never", true]);
  assert.deepEqual([error("transient").message, error("transient").retry_after_ms], ["later", 2000]);
  assert.match(error("topic").message, /a worker cannot give an output a topic of its own/);
  assert.match(error("stray").message, /Error: stray/);
  assert.match(error("timer").message, /Error: in a timer/);
  assert.match(error("set").message, /^the output cannot be written: a value of type Set/);
  assert.equal(error("cause").message, "TypeError: bad; caused by RangeError: deep");
  assert.match(error("cause").trace, /at .*\(tasks\.ts:40:15\)/);
  assert.match(said.at(-1).error.message, /^the item cannot be read: a text that is not UTF-8/);
});

test("a worker says why it cannot start", async () => {
  const { code, errors } = await inFolder({ "tasks.ts": "export const a: number = 1;" }, (folder) => serve(folder, []));
  assert.deepEqual([code, errors.trim()], [1, "the file exports no task"]);
});
