// Where in the author's files a line of a stack is.

import native from "./native.js";
import { START, STRIDE, walk } from "../maps.js";

const FRAME = /^\s*at (?:(.+?) \()?([^()]+?):(\d+)(?::(\d+))?\)?$/;

/** Returns a line of a stack as the author knows it. `undefined` for a line of the SDK or of the engine. */
export function placeOf(frame) {
  const parts = FRAME.exec(frame);
  if (parts === null || parts[2].startsWith("pcluster/") || parts[2] === "native") {
    return undefined;
  }
  const [, name, path, line, column = "1"] = parts;
  const [file, ...place] = mapped(path, Number(line) - 1, Number(column) - 1) ?? [path, line, column];
  const where = [file, ...place].join(":");
  return name && name !== "<anonymous>" && name !== "<eval>" ? `${name} (${where})` : where;
}

/** Returns file, line and column in the source that a place of a bundle was made of. */
function mapped(path, line, column) {
  const start = native.file(`${path}.starts`, Math.floor(line / STRIDE) * START, START);
  if (start === undefined || start.length < START) {
    return undefined;
  }
  const view = new DataView(start.buffer);
  const [offset, ...before] = [0, 4, 8, 12].map((at) => view.getUint32(at, true));
  let state = before;
  let found;
  const lines = linesFrom(path, offset, line % STRIDE);
  for (const [index, text] of lines.entries()) {
    state = walk(text, state, (generated, ...place) => {
      if (index === line % STRIDE && (generated <= column || found === undefined)) {
        found = place;
      }
    });
  }
  if (found === undefined) {
    return undefined;
  }
  const sources = JSON.parse(native.decode(native.file(`${path}.sources`), true));
  return [sources[found[0]], found[1] + 1, found[2] + 1];
}

/** Returns mappings from an offset on, up to a line. */
function linesFrom(path, offset, last) {
  for (let length = 4096; ; length *= 4) {
    const bytes = native.file(`${path}.mappings`, offset, length);
    const lines = native.decode(bytes, true).split(";");
    // The last one may be cut.
    if (lines.length > last + 1 || bytes.length < length) {
      return lines.slice(0, last + 1);
    }
  }
}
