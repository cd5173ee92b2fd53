// The named tensors of a safetensors file: f32 and i64.

/** @param {Buffer} file */
export function readTensors(file) {
  const length = Number(file.readBigUInt64LE(0));
  const head = JSON.parse(file.toString('utf8', 8, 8 + length));
  /** @type {Record<string, { shape: number[], values: number[] }>} */
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: offsets } = {}] of Object.entries(/** @type {Record<string, any>} */ (head))) {
    if (name === '__metadata__') continue;
    const [begin, end] = offsets.map((/** @type {number} */ at) => 8 + length + at);
    // A copy, for the values may not be aligned within the file.
    const { buffer } = Uint8Array.from(file.subarray(begin, end));
    if (dtype === 'F32') tensors[name] = { shape, values: Array.from(new Float32Array(buffer)) };
    else if (dtype === 'I64') tensors[name] = { shape, values: Array.from(new BigInt64Array(buffer), Number) };
  }
  return tensors;
}
