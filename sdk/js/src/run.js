// Runs a task outside of the sandbox, with the same meaning.

import { read, write } from "./cbor.js";
import { IN_ITEM, IN_OUTPUT } from "./failure.js";
import { optionsOf } from "./task.js";
import { WithTopic } from "./values.js";

/** The item cannot be read, or an output not be written. The cause is what was thrown. */
export class Fault extends Error {
  constructor(number, cause) {
    super("", { cause });
    this.number = number;
  }
}

function within(number, act) {
  try {
    return act();
  } catch (error) {
    throw new Fault(number, error);
  }
}

/** Makes the state of a task. Returns a function of its items. */
export async function bind(run, config) {
  const { init } = optionsOf(run) ?? {};
  if (init === undefined) {
    return (item) => run(item);
  }
  const state = await init(config ?? {});
  return (item) => run(item, state);
}

/** Returns `true` for the object that a generator function returns. */
function isGenerator(value) {
  return typeof value?.next === "function" && /Generator\]$/.test(Object.prototype.toString.call(value));
}

/** Yields what a task makes of an item: none, one or many values. */
export async function* valuesOf(run, item) {
  const result = await run(item);
  if (isGenerator(result)) {
    yield* result;
  } else if (result !== undefined) {
    yield result;
  }
}

/** Yields the outputs of an item in CBOR, each with its topic if it has one of its own. */
export async function* outputsOf(run, bytes) {
  const item = within(IN_ITEM, () => read(bytes));
  for await (const output of valuesOf(run, item)) {
    const isTopic = output instanceof WithTopic;
    const value = isTopic ? output.value : output;
    yield { bytes: within(IN_OUTPUT, () => write(value)), topic: isTopic ? String(output.topic) : undefined };
  }
}
