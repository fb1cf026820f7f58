// What the pages and the tests of packages show, which others wrote.

import Ajv from "ajv";
import { XMLParser } from "fast-xml-parser";
import { marked } from "marked";
import Papa from "papaparse";

const validate = new Ajv().compile({
  type: "object",
  properties: { foo: { type: "integer" }, bar: { type: "string" } },
  required: ["foo"],
  additionalProperties: false,
});

const booleans = new XMLParser({ ignoreAttributes: false, attributeNamePrefix: "@_", allowBooleanAttributes: true });
const numbers = new XMLParser({ numberParseOptions: { leadingZeros: true, hex: true, skipLike: /\+[0-9]{10}/ } });

const NUMBERS = `
    <root>
        <a>-0x2f</a>
        <a>006</a>
        <a>6.00</a>
        <a>-01.0E2</a>
        <a>+1212121212</a>
    </root>`;

/** The examples, by a name. */
export const EXAMPLES: Record<string, () => unknown> = {
  ajv: () => validate({ foo: 1, bar: "abc" }),
  "ajv, wrong": () => validate({ foo: 1.5 }) || validate.errors?.map(({ instancePath, message }) => `${instancePath} ${message}`),
  "fast-xml-parser": () => booleans.parse('<root a="nice" checked><a>wow</a></root>'),
  "fast-xml-parser, numbers": () => numbers.parse(NUMBERS),
  marked: () => marked.parse("hello world"),
  papaparse: () => Papa.parse('A,"B""B""B",C\na,b,"c,c\nc"').data,
  "papaparse, header": () => Papa.parse("A,B,C\r\na,b,c", { header: true }).data,
  // It asks for a module of Node.js there, and only there.
  "papaparse, stream": () => Papa.parse(Papa.NODE_STREAM_INPUT as unknown as string),
};
