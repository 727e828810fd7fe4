// Decodes every golden vector with decoder.mjs and compares; prints how many agreed.
import { readFileSync } from "node:fs";
import { decode } from "./decoder.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
const layouts = new Map(vectors.layouts.map((layout) => [layout.id, layout.columns]));

function same(found, text) {
  if (Array.isArray(text)) return found.length === text.length && text.every((item, i) => same(found[i], item));
  return typeof found === "number" ? Object.is(found, Number(text)) : (found === null ? null : String(found)) === text;
}

let agreed = 0;
for (const vector of [...vectors.values, ...vectors.tombstones]) {
  const found = decode(Buffer.from(vector.hex, "hex"), layouts.get(vector.layout) ?? []);
  const isRow = vector.row !== undefined;
  const right = String(found.position) === vector.position && (isRow
    ? found.event === vector.event_timestamp && found.layout === vector.layout && same(found.row, vector.row)
    : found.row === null);
  if (!right) throw new Error(`${vector.name}: ${JSON.stringify(found, (_, v) => (typeof v === "bigint" ? String(v) : v))}`);
  agreed += 1;
}
console.log(agreed);
