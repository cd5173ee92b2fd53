import { InkbloomError } from './errors.js';

const MANIFEST = 'manifest.json';

/**
 * Where a bundle lives. `id` is its folder's address: the name under which it is stored.
 *
 * @typedef {{ id: string, manifestUrl: string }} ModelAddress
 */

/**
 * Reads what a caller gives as `model`: the bundle's folder, or its manifest, absolute or relative to the page.
 *
 * @param {string | URL} model
 * @param {string} base
 * @returns {ModelAddress}
 */
export function resolveModel(model, base) {
  if (!(model instanceof URL) && (typeof model !== 'string' || model.trim() === '')) {
    throw new InkbloomError('bad-input', "`model` must be the address of a bundle's folder, for example '/models/sticker/'.");
  }
  let url;
  try {
    url = new URL(model, base);
  } catch (cause) {
    throw new InkbloomError('bad-input', `\`model\` is not an address: "${model}". Give the address of a bundle's folder, for example '/models/sticker/'.`, { cause });
  }
  if (!url.pathname.endsWith('.json')) {
    if (!url.pathname.endsWith('/')) url.pathname += '/';
    url.pathname += MANIFEST;
  }
  const folder = new URL('.', url);
  return { id: folder.href, manifestUrl: url.href };
}
