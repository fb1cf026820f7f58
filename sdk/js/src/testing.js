// Runs tasks in tests, as a node does.

import { caller } from "./calls.js";
import { contextOf, source } from "./context.js";
import { read, write } from "./cbor.js";
import { bind, outputsOf } from "./run.js";
import { optionsOf } from "./task.js";
import { WithTopic } from "./values.js";

/** Runs a task on an item, with the state that its `init` makes of the `config`. Returns its outputs. */
export async function run(task, item, known = {}) {
  if (optionsOf(task) === undefined) {
    throw new TypeError("run() takes a task: export const NAME = task(...)");
  }
  const before = source.current;
  source.current = () => contextOf(known);
  try {
    const outputs = [];
    for await (const { bytes, topic } of outputsOf(await bind(task, known.config), write(item))) {
      outputs.push(topic === undefined ? read(bytes) : new WithTopic(topic, read(bytes)));
    }
    return outputs;
  } catch (error) {
    throw error.cause !== undefined && error.number !== undefined ? error.cause : error;
  } finally {
    source.current = before;
  }
}

/** Answers the calls of tasks while something runs: `answer(name, request)` returns the response, or throws a `CallError`. */
export async function calls(answer, act) {
  const before = caller.answer;
  caller.answer = answer;
  try {
    return await act();
  } finally {
    caller.answer = before;
  }
}

export { read, write } from "./cbor.js";
