// Timers. They run while a task waits; those that are left at its end are dropped.

import native from "./native.js";

const timers = new Map();
let last = 0;

function set(run, delay, every, values) {
  if (typeof run !== "function") {
    throw new TypeError("a timer takes a function");
  }
  const wait = Math.max(0, Number(delay) || 0);
  last += 1;
  timers.set(last, { run, values, due: native.monotonic() + wait, wait: every ? Math.max(1, wait) : undefined });
  native.timed();
  return last;
}

export function setTimeout(run, delay, ...values) {
  return set(run, delay, false, values);
}

export function setInterval(run, delay, ...values) {
  return set(run, delay, true, values);
}

export function setImmediate(run, ...values) {
  return set(run, 0, false, values);
}

export function clearTimeout(id) {
  timers.delete(id);
}

/** Runs the timer that is due first. Returns the milliseconds until then if it is not due yet, and -1 if there is none. */
export function fire() {
  let next;
  for (const [id, timer] of timers) {
    if (next === undefined || timer.due < next[1].due) {
      next = [id, timer];
    }
  }
  if (next === undefined) {
    return -1;
  }
  const [id, timer] = next;
  const wait = timer.due - native.monotonic();
  if (wait > 0) {
    return wait;
  }
  if (timer.wait === undefined) {
    timers.delete(id);
  } else {
    timer.due += timer.wait;
  }
  timer.run(...timer.values);
  return 0;
}

/** Forgets all timers. */
export function forget() {
  timers.clear();
}
