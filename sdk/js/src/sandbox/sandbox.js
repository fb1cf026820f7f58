// What the engine calls of the SDK: how a task is made ready, and what is told of its failure.

import "./globals.js";
import native from "./native.js";
import { caller } from "../calls.js";
import { contextOf, source } from "../context.js";
import { CallError, Permanent } from "../errors.js";
import { describe as describeFailure } from "../failure.js";
import { sink } from "../log.js";
import { describe as describeTask, tasksOf } from "../task.js";
import { standIn, Tag, tagged, WithTopic } from "../values.js";
import { placeOf } from "./places.js";

export { fire, forget } from "./timers.js";
export { standIn, tagged };
export const tag = Tag.prototype;
export const topic = WithTopic.prototype;

sink.write = native.log;
source.current = () => contextOf(native.context());

/** What the task lists that it calls. A plugin whose tasks list nothing is built without the call. */
let listed = [];

caller.answer = (name, request) => {
  const [group] = name.split(".");
  if (!listed.includes(group)) {
    throw new CallError("denied", `the task does not list that it calls ${group}: task(..., { calls: ["${group}"] })`);
  }
  const [isAnswered, answer] = native.call(name, request);
  if (!isAnswered) {
    const { kind, message, transient, retry_after_ms: after } = answer;
    throw new CallError(kind, message, { transient, after: after && after / 1000 });
  }
  return answer;
};

/** What `build` says of the plugin: its entry, and its tasks in the order of their numbers. */
const plan = JSON.parse(native.decode(native.file("pcluster.json"), true));

let found;

function tasks() {
  found ??= tasksOf(native.module(plan.entry));
  return found;
}

/** Returns the function of a task, its `init`, the stage's config, and examples. */
export function load(number) {
  const name = plan.tasks[number];
  const task = tasks().find((each) => each.name === name);
  if (task === undefined) {
    throw new Permanent(`the plugin exports no task \`${name}\``);
  }
  const { init, examples = [], calls = [] } = task.options;
  listed = calls;
  return [task.run, init, init && source.current().config, examples];
}

/** Returns the tasks as the plugin ABI describes them. */
export function describe() {
  // Only a build asks, so that no plugin has the module.
  const { schemaOf } = native.module("pcluster/schemas.js");
  return JSON.stringify(tasks().map((task) => describeTask(task, schemaOf)));
}

/** Tells the node why an item, or the making of the state, has failed. Returns the status. */
export function failed(error, fault) {
  const { reason, trace, permanent, afterMs } = describeFailure(error, fault, placeOf, { inSandbox: true });
  native.fail((trace ? `${reason}\n${trace}` : reason).toWellFormed());
  if (afterMs !== undefined) {
    native.retryAfter(afterMs);
  }
  return permanent ? 2 : 1;
}

/** Makes an integer of digits in base 16. */
export function bigint(digits, isNegative) {
  const number = isNegative ? -1n - BigInt(digits) : BigInt(digits);
  return Number.isSafeInteger(Number(number)) ? Number(number) : number;
}
