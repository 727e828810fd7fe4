// Reads the online format in another language, from docs/reference/online-format.md alone; checks the golden vectors.
const SLOTS = {
  DOUBLE: [8, "getFloat64"], BIGINT: [8, "getBigInt64"], "TIMESTAMP WITH TIME ZONE": [8, "getBigInt64"],
  UBIGINT: [8, "getBigUint64"], FLOAT: [4, "getFloat32"], INTEGER: [4, "getInt32"], DATE: [4, "getInt32"],
  UINTEGER: [4, "getUint32"], VARCHAR: [4, "getUint32"], BLOB: [4, "getUint32"], SMALLINT: [2, "getInt16"],
  USMALLINT: [2, "getUint16"], TINYINT: [1, "getInt8"], UTINYINT: [1, "getUint8"], BOOLEAN: [1, "getUint8"],
};

function instant(micros) {
  const millis = micros / 1000n - (micros % 1000n < 0n ? 1n : 0n); // towards the past, also before 1970
  return new Date(Number(millis)).toISOString().slice(0, -1) + String(micros - millis * 1000n).padStart(3, "0") + "Z";
}

function decimal(unscaled, scale) {
  const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, "0");
  const point = digits.length - scale;
  return (unscaled < 0n ? "-" : "") + digits.slice(0, point) + (scale ? "." + digits.slice(point) : "");
}

export function decode(bytes, columns) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const head = { position: view.getBigUint64(0), row: null };
  if (bytes.length === 16) return head; // no row
  head.event = instant(BigInt.asIntN(64, view.getBigUint64(8) ^ (1n << 63n)));
  head.layout = bytes.subarray(16, 20).toString("hex");
  let [at, lengths] = [20 + Math.ceil(columns.length / 8), []];
  const numbers = (type, from, count) =>
    Array.from({ length: count }, (_, i) => view[SLOTS[type][1]](from + i * SLOTS[type][0], true));
  head.row = columns.map(([, type], i) => {
    const [, element, fixed] = /^(\w+)\[(\d*)\]$/.exec(type) ?? [];
    const [, precision, scale] = /^DECIMAL\((\d+),(\d+)\)$/.exec(type) ?? [];
    const isNull = (bytes[20 + (i >> 3)] >> (i & 7)) & 1;
    const start = at;
    if (precision > 18) {
      at += 16;
      return isNull ? null : decimal((view.getBigInt64(start + 8, true) << 64n) | view.getBigUint64(start, true), +scale);
    }
    if (fixed) {
      at += SLOTS[element][0] * +fixed;
      return isNull ? null : numbers(element, start, +fixed);
    }
    const [size, read] = SLOTS[precision ? "BIGINT" : element ? "VARCHAR" : type];
    const value = view[read](start, true);
    at += size;
    if (element || type === "VARCHAR" || type === "BLOB") lengths.push([i, type, element, value]);
    if (isNull) return null;
    if (precision) return decimal(value, +scale);
    if (type === "DATE") return instant(BigInt(value) * 86400000000n).slice(0, -17);
    return type === "BOOLEAN" ? value === 1 : type.startsWith("TIME") ? instant(value) : value;
  });
  for (const [i, type, element, length] of lengths) { // the bytes behind the fixed section, in column order
    const tail = bytes.subarray(at, at + length);
    if (head.row[i] !== null) {
      head.row[i] = element ? numbers(element, at, length / SLOTS[element][0]) : tail.toString(type === "BLOB" ? "hex" : "utf8");
    }
    at += length;
  }
  if (at !== bytes.length) throw new Error(`${bytes.length} bytes where the layout asks for ${at}`);
  return head;
}
