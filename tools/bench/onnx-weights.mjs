// An ONNX file without the weights that a bundle holds too, and whole again: both are the same numbers, and a bundle's are small.
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Smaller ones are not worth a search. */
const LEAST_BYTES = 4096;

/** @typedef {{ begin: number, end: number } | { tensor: string, columns: number }} Part of the rest, or a tensor; turned where it has columns */

/**
 * By name the matrices of a bundle's core components, read when they are asked for, as src/weights/dtype.rs stores them.
 *
 * @param {string} model
 * @returns {Map<string, { rows: number, columns: number, read: () => Float32Array }>}
 */
export function tensorsOf(model) {
  const { tensors, shards } = JSON.parse(readFileSync(path.join(model, 'manifest.json'), 'utf8'));
  /** @type {Map<number, Buffer>} */
  const files = new Map();
  const content = (/** @type {number} */ shard) => {
    const file = files.get(shard) ?? readFileSync(path.join(model, shards[shard].file));
    files.set(shard, file);
    return file;
  };
  const core = tensors.filter((/** @type {any} */ { name }) => /^(text_encoder|transformer|vae)\//.test(name));
  return new Map(core.map((/** @type {any} */ { name, dtype, shape, parts }) => {
    const size = shape.reduce((/** @type {number} */ all, /** @type {number} */ one) => all * one, 1);
    const rows = parts.reduce((/** @type {number} */ sum, /** @type {any} */ part) => sum + part.rows, 0);
    const columns = size / rows;
    const read = () => {
      const values = new Float32Array(size);
      let row = 0;
      for (const part of parts) {
        values.set(decode(dtype, content(part.shard).subarray(part.offset), part.rows, columns), row * columns);
        row += part.rows;
      }
      return values;
    };
    return [name, { rows, columns, read }];
  }));
}

/** @param {string} dtype @param {Buffer} bytes @param {number} rows @param {number} columns */
function decode(dtype, bytes, rows, columns) {
  const values = new Float32Array(rows * columns);
  const f16 = (/** @type {number} */ index) => half(bytes.readUInt16LE(2 * index));
  if (dtype === 'f32') values.forEach((_, i) => { values[i] = bytes.readFloatLE(4 * i); });
  else if (dtype === 'f16') values.forEach((_, i) => { values[i] = f16(i); });
  else if (dtype === 'q8') {
    const scales = Float32Array.from({ length: rows }, (_, row) => f16(row));
    for (let i = 0; i < values.length; i += 1) values[i] = scales[Math.floor(i / columns)] * bytes.readInt8(2 * rows + i);
  } else if (dtype === 'q4') {
    const [blocks, width] = [Math.ceil(columns / 32), Math.ceil(columns / 2)];
    const scales = Float32Array.from({ length: rows * blocks }, (_, block) => f16(block));
    for (let row = 0, i = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1, i += 1) {
        const pair = bytes[2 * rows * blocks + row * width + (column >> 1)];
        values[i] = scales[row * blocks + (column >> 5)] * ((column & 1 ? pair >> 4 : pair & 15) - 8);
      }
    }
  } else throw new Error(`weights stored as ${dtype} are not known here`);
  return values;
}

/** @param {number} bits */
function half(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

/** @param {Float32Array} values @param {number} rows @param {number} columns */
function turned(values, rows, columns) {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1) for (let column = 0; column < columns; column += 1) out[column * rows + row] = values[row * columns + column];
  return out;
}

const bytesOf = (/** @type {Float32Array} */ { buffer, byteOffset, byteLength }) => Buffer.from(/** @type {ArrayBuffer} */ (buffer), byteOffset, byteLength);

/**
 * @param {Buffer} file @param {ReturnType<typeof tensorsOf>} tensors
 * @returns {{ parts: Part[], rest: Buffer }}
 */
export function pack(file, tensors) {
  /** @type {{ begin: number, end: number, part: Part }[]} */
  const found = [];
  for (const [tensor, { rows, columns, read }] of tensors) {
    if (4 * rows * columns < LEAST_BYTES) continue;
    const values = read();
    for (const turn of [false, true]) {
      const needle = bytesOf(turn ? turned(values, rows, columns) : values);
      // Its beginning first: most are not there.
      const begin = file.indexOf(needle.subarray(0, 256)) < 0 ? -1 : file.indexOf(needle);
      if (begin < 0 || found.some((other) => begin < other.end && other.begin < begin + needle.length)) continue;
      found.push({ begin, end: begin + needle.length, part: { tensor, columns: turn ? columns : 0 } });
      break;
    }
  }
  found.sort((one, other) => one.begin - other.begin);
  /** @type {Part[]} */
  const parts = [];
  const rest = [];
  let [at, kept] = [0, 0];
  for (const { begin, end, part } of [...found, { begin: file.length, end: file.length, part: undefined }]) {
    rest.push(file.subarray(at, begin));
    parts.push({ begin: kept, end: kept + begin - at }, ...(part ? [part] : []));
    kept += begin - at;
    at = end;
  }
  const packed = { parts, rest: Buffer.concat(rest) };
  if (!unpack(packed, tensors).equals(file)) throw new Error('a packed ONNX file is not the same when unpacked');
  return packed;
}

/** @param {{ parts: Part[], rest: Buffer }} packed @param {ReturnType<typeof tensorsOf>} tensors */
export function unpack({ parts, rest }, tensors) {
  return Buffer.concat(parts.map((part) => {
    if (!('tensor' in part)) return rest.subarray(part.begin, part.end);
    const { rows, columns, read } = /** @type {NonNullable<ReturnType<typeof tensors.get>>} */ (tensors.get(part.tensor));
    return bytesOf(part.columns ? turned(read(), rows, columns) : read());
  }));
}
