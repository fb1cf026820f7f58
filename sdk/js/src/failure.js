// What a failure says: the error, its causes, and the lines of the author that it went through.

import { CallError, Permanent, Transient } from "./errors.js";
import { inspect } from "./inspect.js";

/** Where an error was thrown: in the task, while its item was read, or while an output was written. */
export const IN_TASK = 0;
export const IN_ITEM = 1;
export const IN_OUTPUT = 2;

const FAULTS = ["", "the item cannot be read", "the output cannot be written"];
const TEXT_MAX = 4000;
const CAUSES_MAX = 8;
const FRAMES_MAX = 20;

/** The errors that say all there is to say: without their type, and without lines. */
function isOwn(error) {
  return error instanceof Permanent || error instanceof Transient || error instanceof CallError;
}

function isLimit(error) {
  return error instanceof RangeError && /stack/.test(error.message) || error?.name === "InternalError";
}

/** What to do, by the text of an error that the sandbox is the cause of. */
const ADVICE = [
  [/out of memory/, "the stage's `memory` sets how much an item may have"],
  [/^thrown: null$/, "so does the interpreter without memory for an error: the stage's `memory` sets how much an item may have"],
  [/call stack|stack overflow/, "the task calls itself, or its value is nested, too deeply"],
  [/'?(fetch|XMLHttpRequest|WebSocket)'? is not defined/, "the sandbox has no network: list `calls`, or run the file as a native worker"],
  [/'?(require|Buffer|__dirname|Worker)'? is not defined/, "the sandbox is not Node.js: run the file as a native worker"],
  [/'?Intl'? is not defined/, "the sandbox has no Intl: run the file as a native worker"],
];

/** Returns the type and the message; of the SDK's own errors the message alone. */
function textOf(error) {
  if (!(error instanceof Error)) {
    return `thrown: ${inspect(error, 1)}`.slice(0, TEXT_MAX);
  }
  let message = String(error.message ?? "");
  if (message.length > TEXT_MAX) {
    message = `${message.slice(0, TEXT_MAX)}…`;
  }
  if (isOwn(error) && message) {
    return message;
  }
  const name = String(error.name || error.constructor?.name || "Error");
  return message ? `${name}: ${message}` : name;
}

/** Returns what an error comes of, the nearest first. */
function causesOf(error) {
  const found = [];
  let cause = error instanceof Error ? error.cause : undefined;
  if (cause === undefined && error instanceof AggregateError) {
    return error.errors.slice(0, CAUSES_MAX);
  }
  while (cause !== undefined && cause !== null && found.length < CAUSES_MAX && !found.includes(cause)) {
    found.push(cause);
    cause = cause.cause;
  }
  return found;
}

/** Returns the lines of the author that an error went through. `place` says where a line of a stack is, or that it is none of theirs. */
function traceOf(error, place) {
  const lines = String(error?.stack ?? "").split("\n").map(place).filter(Boolean);
  const kept = lines.slice(0, FRAMES_MAX).map((line) => `    at ${line}`);
  if (lines.length > FRAMES_MAX) {
    kept.push(`    … ${lines.length - FRAMES_MAX} calls before`);
  }
  return kept.join("\n");
}

/** Returns what there is to say of an error that ended an item: the reason, its trace, whether it is permanent, and the delay. */
export function describe(error, fault, place, { inSandbox = false } = {}) {
  const isFault = fault !== IN_TASK && !isLimit(error);
  const permanent = isFault || error instanceof Permanent || (error instanceof CallError && !error.transient);
  const after = error instanceof Transient || error instanceof CallError ? error.after : undefined;
  const causes = causesOf(error);
  let reason = isFault ? `${FAULTS[fault]}: ${error?.message ?? inspect(error)}` : textOf(error);
  for (const cause of causes) {
    reason += `; caused by ${textOf(cause)}`;
  }
  const advice = inSandbox && ADVICE.find(([pattern]) => pattern.test(reason));
  if (advice) {
    reason += ` (${advice[1]})`;
  }
  let trace = "";
  if (fault !== IN_ITEM && !isOwn(error)) {
    trace = traceOf(error, place);
    for (const cause of causes) {
      const lines = traceOf(cause, place);
      trace += lines && `\ncaused by ${textOf(cause)}\n${lines}`;
    }
  }
  return { reason, trace: trace.replace(/^\n/, ""), permanent, afterMs: millisOf(after) };
}

/** Returns seconds as milliseconds. */
function millisOf(after) {
  const millis = Math.round(Number(after) * 1000);
  return Number.isNaN(millis) ? undefined : Math.max(0, millis);
}
