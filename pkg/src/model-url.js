import { InkbloomError } from './errors.js';

const MANIFEST = 'manifest.json';

/**
 * Where a bundle lives. `id` is its folder's address: the name under which it is stored. It is without a query, for
 * that may be a token: another one tomorrow, and nothing to keep.
 *
 * @typedef {{ id: string, manifestUrl: string }} ModelAddress
 */

/** What relative addresses are relative to: the page, or in a worker its script. */
export function pageAddress() {
  const address = globalThis.document?.baseURI ?? globalThis.location?.href;
  if (address === undefined) {
    throw new InkbloomError('unsupported', 'Inkbloom draws in a browser, and there is none here. On a server import it if you like, and call it in the browser only, for example in an effect of your component.');
  }
  return address;
}

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
  if (url.username !== '' || url.password !== '') {
    throw new InkbloomError('bad-input', `\`model\` must not carry a user's name or password: browsers do not fetch such addresses. Put a token behind a "?" instead.`);
  }
  if (!url.pathname.endsWith('.json')) {
    if (!url.pathname.endsWith('/')) url.pathname += '/';
    url.pathname += MANIFEST;
  }
  url.hash = '';
  const folder = new URL('.', url);
  return { id: folder.href, manifestUrl: url.href };
}

/**
 * Where a shard is: relative to where the manifest was found, which a redirect may have moved, and with the query that
 * the manifest was asked for with. No other origin gets that query unless the redirect gave it.
 *
 * @param {string} file as the manifest names it
 * @param {string} asked the address that the manifest was asked for at
 * @param {string} [found] the address that answered
 * @returns {string}
 */
export function resolveShard(file, asked, found = asked) {
  const manifest = new URL(found, asked);
  const url = new URL(file, manifest);
  if (url.search === '' && url.origin === manifest.origin) {
    const before = new URL(asked);
    url.search = manifest.search || (before.origin === manifest.origin ? before.search : '');
  }
  return url.href;
}

/**
 * An address as messages show it: what stands behind the `?` may be a token, and messages are copied into reports.
 *
 * @param {string} url
 * @returns {string}
 */
export function shownAddress(url) {
  const end = url.search(/[?#]/);
  return end < 0 ? url : `${url.slice(0, end)}?…`;
}
