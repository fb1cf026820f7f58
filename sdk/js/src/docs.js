// What authors write above their tasks.

const COMMENT = /\/\*\*((?:[^*]|\*(?!\/))*)\*\/\s*export\s+(?:const|let|var|async\s+function\*?|function\*?)\s+([A-Za-z_$][\w$]*)/g;

/** Returns the first paragraph of the comment above each export. */
export function docsOf(source) {
  const docs = new Map();
  for (const [, comment, name] of source.matchAll(COMMENT)) {
    const lines = comment.split("\n").map((line) => line.replace(/^\s*\*? ?/, "").trim());
    const start = lines.findIndex(Boolean);
    const end = lines.findIndex((line, index) => index > start && (line === "" || line.startsWith("@")));
    const text = start < 0 ? "" : lines.slice(start, end < 0 ? undefined : end).join(" ").trim();
    if (text !== "" && !text.startsWith("@")) {
      docs.set(name, text);
    }
  }
  return docs;
}
