// A stand-in for the wasm in tests that are about downloading and storing: it checks shards as the real one
// does and draws nothing.
import { sha256 } from './hash.js';

/** @param {string} code @param {string} message */
function failure(code, message) {
  return Object.assign(new Error(message), { code });
}

/** @param {string} manifest */
function parse(manifest) {
  try {
    return JSON.parse(manifest);
  } catch {
    throw failure('bad-model', 'manifest.json is not valid JSON');
  }
}

/**
 * The hashes of the shards that a fake model was made of.
 *
 * @param {unknown} model
 * @returns {string[]}
 */
export function drawsWith(model) {
  return /** @type {{ shards: { sha256: string }[] }} */ (model).shards.map((shard) => shard.sha256);
}

/**
 * @param {string} manifest
 * @param {import('../../../pkg/src/contract.js').DeviceChoice} device
 */
export async function openFake(manifest, device) {
  const { version, shards } = parse(manifest);
  if (version !== 1) throw failure('bad-model', `manifest.json: version ${version} is not known`);
  /** @type {Set<number>} */
  const pushed = new Set();
  const loader = {
    device: () => ({ kind: /** @type {const} */ ('cpu'), name: device }),
    shards: () => shards,
    /** @param {number} index @param {Uint8Array} bytes */
    async push(index, bytes) {
      if (sha256(bytes) !== shards[index].sha256) throw failure('corrupt-weights', `${shards[index].file} does not have the SHA-256 of the manifest`);
      pushed.add(index);
    },
    async finish() {
      if (pushed.size !== shards.length) throw failure('bad-model', 'shards are missing');
      return { warm_up: async () => {}, shards };
    },
    free() {},
  };
  return /** @type {import('../../../pkg/src/contract.js').Loader} */ (/** @type {unknown} */ (loader));
}
