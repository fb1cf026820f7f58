// Where in the author's files a line of a stack is.

import native from "./native.js";

const FRAME = /^\s*at (?:(.+?) \()?([^()]+?):(\d+)(?::(\d+))?\)?$/;
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Returns a line of a stack as the author knows it. `undefined` for a line of the SDK or of the engine. */
export function placeOf(frame) {
  const parts = FRAME.exec(frame);
  if (parts === null || parts[2].startsWith("pcluster/") || parts[2] === "native") {
    return undefined;
  }
  const [, name, path, line, column = "1"] = parts;
  const [file, ...place] = mapped(path, Number(line), Number(column)) ?? [path, line, column];
  const where = [file, ...place].join(":");
  return name && name !== "<anonymous>" && name !== "<eval>" ? `${name} (${where})` : where;
}

/** Returns file, line and column in the source that a line of a bundle was made of. */
function mapped(path, line, column) {
  const bytes = native.file(`${path}.map`);
  if (bytes === undefined) {
    return undefined;
  }
  const map = JSON.parse(native.decode(bytes));
  let [source, sourceLine, sourceColumn] = [0, 0, 0];
  let found;
  for (const [index, segments] of map.mappings.split(";", line).entries()) {
    let generated = 0;
    for (const segment of segments.split(",")) {
      const [ahead = 0, sources, lines, columns] = numbers(segment);
      generated += ahead;
      if (sources === undefined) {
        continue;
      }
      source += sources;
      sourceLine += lines;
      sourceColumn += columns;
      if (index === line - 1 && generated <= column - 1) {
        found = [map.sources[source], sourceLine + 1, sourceColumn + 1];
      }
    }
  }
  return found;
}

/** Returns the numbers of a segment: base 64, five bits a digit, the sign in the lowest bit. */
function numbers(segment) {
  const found = [];
  let [value, shift] = [0, 0];
  for (const character of segment) {
    const digit = DIGITS.indexOf(character);
    value += (digit & 31) << shift;
    shift += 5;
    if (digit < 32) {
      found.push(value & 1 ? -(value >> 1) : value >> 1);
      [value, shift] = [0, 0];
    }
  }
  return found;
}
