// Tasks that are tried from all sides by the end-to-end tests.

import { addBusinessDays, differenceInCalendarDays, formatISO, parseISO } from "date-fns";
import { context, log, Permanent, task, Transient, WithTopic } from "pcluster";
import { z } from "zod";
import { price } from "./shop/price";

const MADE = { random: Math.random(), uuid: crypto.randomUUID(), at: Date.now() };

/** Returns its item. */
export const echo = task((item: unknown) => item);

/** Returns what must be another in each instance. */
export const dice = task(
  () => ({
    random: Math.random(),
    uuid: crypto.randomUUID(),
    bytes: [...crypto.getRandomValues(new Uint8Array(8))],
    now: Date.now(),
    made: MADE.random,
    madeAt: MADE.at,
  }),
  { init: () => undefined, examples: [1] },
);

const Order = z.object({
  id: z.string().min(1),
  email: z.email(),
  placed: z.iso.datetime(),
  lines: z.array(z.object({ article: z.string(), count: z.int().positive() })).min(1),
});

/** Checks an order, and says when it is due. */
export const check = task((item: unknown) => {
  const checked = Order.safeParse(item);
  if (!checked.success) {
    throw new Permanent(z.prettifyError(checked.error));
  }
  const placed = parseISO(checked.data.placed);
  const due = addBusinessDays(placed, 3);
  return { id: checked.data.id, due: formatISO(due, { representation: "date" }), days: differenceInCalendarDays(due, placed) };
}, { examples: [{ id: "1", email: "ada@example.com", placed: "2026-01-02T03:04:05Z", lines: [{ article: "tea", count: 1 }] }] });

function deep(number: number): number {
  return deep(number + 1) + 1;
}

const later = (millis: number) => new Promise((done) => setTimeout(done, millis));

const ENDS: Record<string, () => unknown> = {
  cause: () => price({}),
  permanent: () => {
    throw new Permanent("never");
  },
  transient: () => {
    throw new Transient(`attempt ${context().attempt}`, { after: 0.01 });
  },
  text: () => {
    throw "only a text";
  },
  deep: () => deep(0),
  json: () => JSON.parse("[".repeat(100_000)),
  memory: () => new Uint8Array(1 << 30).length,
  loop: () => {
    for (;;);
  },
  reject: () => Promise.reject(new RangeError("rejected")),
  dropped: () => {
    Promise.reject(new RangeError("dropped"));
    return "dropped";
  },
  never: () => new Promise(() => {}),
  late: async () => {
    await later(2);
    throw new Error("too late");
  },
  wait: async () => {
    await Promise.all([later(3), later(2)]);
    return "waited";
  },
  left: () => {
    setTimeout(() => {
      throw new Error("a timer of an item before");
    }, 1);
    return "left";
  },
  set: () => new Set([1]),
  network: () => (globalThis as any).fetch("https://example.com"),
};

/** Ends in a way of its own. */
export const end = task((how: string) => {
  console.log("%s begins", how);
  return (ENDS[how] as () => unknown)();
});

/** Writes to the log in each way. */
export const say = task((item: string) => {
  log.debug("by log %d", 1);
  console.warn("by console", { item });
  console.log("by print");
  return new WithTopic("ada", [context().chain, context().attempt, context().config]);
});
