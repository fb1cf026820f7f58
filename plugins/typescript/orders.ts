import { context, log, Permanent, task } from "pcluster";

interface Line {
  article: string;
  count: number;
}

interface Order {
  id: string;
  lines: Line[];
}

interface Priced extends Line {
  order: string;
  /** In cents. */
  price: number;
}

/** Runs before the first order, so that it finds everything warm. */
const EXAMPLE: Order = { id: "example", lines: [{ article: " Tea ", count: 2 }] };

/** Evens out the names of articles. Drops an order that is empty. */
export const clean = task(
  (order: Order): Order | undefined => {
    const lines = order.lines
      .filter((line) => line.count > 0)
      .map((line) => ({ article: line.article.trim().toLowerCase(), count: line.count }));
    if (lines.length === 0) {
      log.info("order %s is empty", order.id);
      return undefined;
    }
    return { id: order.id, lines };
  },
  { examples: [EXAMPLE] },
);

/** Makes an item of each line. */
export const split = task(
  function* (order: Order) {
    for (const line of order.lines) {
      yield { order: order.id, ...line };
    }
  },
  { examples: [EXAMPLE] },
);

/** Reads the prices from the stage's `config`. Runs once. */
function load(config: { prices: Record<string, number> }): Map<string, number> {
  return new Map(Object.entries(config.prices));
}

/** Gives a line its price. */
export const price = task(
  (line: Line & { order: string }, prices: Map<string, number>): Priced => {
    const each = prices.get(line.article);
    if (each === undefined) {
      throw new Permanent(`there is no price of ${line.article} in ${context().stage}`);
    }
    return { ...line, price: each * line.count };
  },
  { init: load },
);
