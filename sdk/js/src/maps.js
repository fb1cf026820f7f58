// Source maps, in a form in which a place is found without reading all of it.

/** How many lines of the bundle share a start. */
export const STRIDE = 32;
/** The bytes of a start: where its line is in the mappings, and source, line and column before it. */
export const START = 16;

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUES = Object.fromEntries([...DIGITS].map((digit, value) => [digit, value]));

/** Returns the numbers of a segment: base 64, five bits a digit, the sign in the lowest bit. */
function numbers(segment) {
  const found = [];
  let [value, shift] = [0, 0];
  for (const character of segment) {
    const digit = VALUES[character];
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit < 32) {
      found.push(value & 1 ? -(value >> 1) : value >> 1);
      [value, shift] = [0, 0];
    }
  }
  return found;
}

/** Calls `visit` with column, source, line and column of each segment of a line. Returns the last three. */
export function walk(line, [source, sourceLine, sourceColumn], visit = () => {}) {
  let column = 0;
  for (const segment of line === "" ? [] : line.split(",")) {
    const [ahead, sources, lines, columns] = numbers(segment);
    column += ahead;
    if (sources !== undefined) {
      source += sources;
      sourceLine += lines;
      sourceColumn += columns;
      visit(column, source, sourceLine, sourceColumn);
    }
  }
  return [source, sourceLine, sourceColumn];
}

/** Returns the files by which the engine finds places in a bundle. */
export function split(path, map) {
  const { mappings, sources } = JSON.parse(map);
  const starts = [];
  let [offset, state] = [0, [0, 0, 0]];
  for (const [index, line] of mappings.split(";").entries()) {
    if (index % STRIDE === 0) {
      starts.push(offset, ...state);
    }
    state = walk(line, state);
    offset += line.length + 1;
  }
  const packed = Buffer.alloc(starts.length * 4);
  starts.forEach((number, index) => packed.writeUInt32LE(number, index * 4));
  return new Map([
    [`${path}.mappings`, mappings],
    [`${path}.sources`, JSON.stringify(sources)],
    [`${path}.starts`, packed],
  ]);
}
