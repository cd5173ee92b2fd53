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
  const { version, shards, optional = [] } = parse(manifest);
  if (![1, 2].includes(version)) throw failure('bad-model', `manifest.json: version ${version} is not known`);
  /** @param {import('../../../pkg/src/contract.js').Shard} shard */
  const isOptional = ({ file }) => optional.some((/** @type {string} */ component) => file.startsWith(component));
  /** @type {Set<string>} */
  const held = new Set();
  /** @param {import('../../../pkg/src/contract.js').Shard[]} part */
  const loaderOf = (part) => ({
    device: () => ({ kind: /** @type {const} */ ('cpu'), name: device }),
    shards: () => part,
    compile: async () => true,
    /** @param {number} index @param {Uint8Array} bytes */
    async push(index, bytes) {
      if (sha256(bytes) !== part[index].sha256) throw failure('corrupt-weights', `${part[index].file} does not have the SHA-256 of the manifest`);
      held.add(part[index].file);
    },
    async finish() {
      if (!part.every(({ file }) => held.has(file))) throw failure('bad-model', 'shards are missing');
      return {
        warm_up: async () => {},
        shards: part,
        text_loader: () => undefined,
        /** @param {{ preview?: boolean }} request */
        optional_loader: ({ preview }) => (preview && optional.length > 0 && !added ? loaderOf(shards.filter(isOptional)) : undefined),
        add: () => { added = true; },
      };
    },
    free() {},
  });
  let added = false;
  const loader = loaderOf(shards.filter((/** @type {import('../../../pkg/src/contract.js').Shard} */ shard) => !isOptional(shard)));
  return /** @type {import('../../../pkg/src/contract.js').Loader} */ (/** @type {unknown} */ (loader));
}
