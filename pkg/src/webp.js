import createEncoder from '@jsquash/webp/codec/enc/webp_enc_simd.js';
import { defaultOptions } from '@jsquash/webp/meta.js';
import { PATIENCE, fetchAndRead } from './download.js';

/** Who saves is waiting: one more try, and then without. */
const IMPATIENCE = { ...PATIENCE, attempts: 2 };

/**
 * Makes a still, lossy WebP; qualities are from 1 to 100.
 *
 * @typedef {(image: import('./contract.js').Pixels, quality: number, alphaQuality: number) => Uint8Array} LossyEncoder
 */

/** libwebp's effort, 0 to 6: less than its own 4, for somebody waits. */
const EFFORT = 2;

/** @type {Promise<LossyEncoder> | undefined} */
let loading;

/**
 * libwebp, fetched when it is first wanted: not every browser's canvas writes WebP, and none tells straight alpha.
 *
 * @returns {Promise<LossyEncoder>}
 */
export function lossyEncoder() {
  loading ??= load().catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** @returns {Promise<LossyEncoder>} */
async function load() {
  const url = new URL('./webp_enc_simd.wasm', import.meta.url).href;
  const module = await fetchAndRead(url, async (response) => WebAssembly.compile(await response.arrayBuffer()), { patience: IMPATIENCE });
  const encoder = await createEncoder({
    noInitialRun: true,
    /** @param {WebAssembly.Imports} imports @param {(instance: WebAssembly.Instance) => void} done */
    instantiateWasm(imports, done) {
      const instance = new WebAssembly.Instance(module, imports);
      done(instance);
      return instance.exports;
    },
  });
  return ({ data, width, height }, quality, alphaQuality) => {
    const options = { ...defaultOptions, method: EFFORT, quality, alpha_quality: alphaQuality };
    const bytes = encoder.encode(/** @type {Uint8ClampedArray<ArrayBuffer>} */ (data), width, height, options);
    if (!bytes) throw new Error('libwebp gave no file');
    return bytes;
  };
}
