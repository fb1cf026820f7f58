// Lines of the log, each with its level.

import { format } from "./inspect.js";

export const LEVELS = { error: 1, warn: 2, info: 3, debug: 4, trace: 5 };

/** Where lines go. The sandbox and the worker set their own. */
export const sink = {
  write(level, text) {
    const name = Object.keys(LEVELS)[level - 1];
    process.stderr.write(`${name.padEnd(5)} ${text}\n`);
  },
};

function line(level) {
  return (...values) => sink.write(level, format(...values));
}

export const log = Object.fromEntries(Object.entries(LEVELS).map(([name, level]) => [name, line(level)]));
