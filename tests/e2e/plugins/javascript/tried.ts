// Tasks that are tried from all sides by the end-to-end tests.

import { addBusinessDays, differenceInCalendarDays, formatISO, parseISO } from "date-fns";
import {
  Bucket,
  CallError,
  context,
  http,
  log,
  Permanent,
  publish,
  reveal,
  Secret,
  Store,
  task,
  Transient,
  WithTopic,
} from "pcluster";
import { z } from "zod";
import { EXAMPLES } from "./examples";
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

/** Returns the name of an example of a package, and what the example returns. */
export const shown = task((name: string) => [name, (EXAMPLES[name] as () => unknown)()]);

/** Returns the kind of the error that a call ends with. */
function kindOf(call: () => unknown): string {
  try {
    return `returned ${call()}`;
  } catch (error) {
    return error instanceof CallError ? error.kind : String(error);
  }
}

/** Calls the node in each way. */
export const reach = task(
  ({ url }: { url: string }) => {
    const cache = new Bucket("cache");
    const before = cache.get("rate");
    const headers = { Authorization: new Secret("api_token").bearer() };
    const answer = http.get(url, { headers }).throwForStatus();
    cache.put("rate", answer.body);
    const store = new Store("models");
    store.put("copy", answer.body);
    publish("alerts.rates", "changed");
    return {
      before: before ?? null,
      status: answer.status,
      cached: cache.get("rate")?.text(),
      stored: new TextDecoder().decode(store.get("copy")?.data),
      denied: [kindOf(() => new Bucket("other").get("rate")), kindOf(() => reveal("api_token"))],
    };
  },
  { calls: ["http", "kv", "objects", "publish", "secrets"] },
);

/** Returns a time, and what its clock shows here. */
export const clock = task((time: Date) => [time, time.getHours(), time.getTimezoneOffset(), formatISO(time), String(time)]);

const seen = { items: 0 };

/** Makes garbage, with circles in it. Returns how many items the instance has had, once in a thousand. */
export const count = task((item: number) => {
  const circle: Record<string, unknown> = { item, text: String(item).repeat(10) };
  circle.self = [circle, JSON.parse(JSON.stringify(Array(5).fill(item)))];
  seen.items += 1;
  return seen.items % 1000 === 0 ? seen.items : undefined;
});

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
