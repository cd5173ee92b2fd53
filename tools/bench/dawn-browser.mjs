// Makes a thread of Node look like a page or a worker of Chromium, as far as Inkbloom and onnxruntime-web look: WebGPU by Dawn,
// addresses, fetch, messages.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Addresses are as in the page: onnxruntime-web reads no file:// but by XMLHttpRequest. */
export const SITE = 'http://bench';

/**
 * @typedef {object} Browser
 * @property {string[]} options of Dawn, for example `backend=vulkan`
 * @property {Record<string, string>} folders by the beginning of the addresses that they are served at
 */

/** The file of an address. @param {Browser} browser @param {string | URL} address */
export function fileOf({ folders }, address) {
  const url = new URL(address, SITE);
  if (url.protocol === 'file:') return fileURLToPath(url);
  const [prefix, folder] = Object.entries(folders).find(([prefix]) => url.pathname.startsWith(prefix)) ?? [];
  if (url.origin !== SITE || prefix === undefined) throw new TypeError(`nothing is served at ${url}`);
  return path.join(/** @type {string} */ (folder), url.pathname.slice(prefix.length));
}

/** @param {Browser} browser @param {(message: any, transfer: any) => void} [postMessage] a worker's way to its page */
export async function pretend(browser, postMessage) {
  const entry = 'webgpu';
  const { create, globals } = await import(entry);
  const scope = /** @type {any} */ (globalThis);
  const events = new EventTarget();
  const fetched = async (/** @type {string | URL} */ address) => {
    const response = new Response(await readFile(fileOf(browser, address)), { headers: { 'content-type': `${address}`.endsWith('.wasm') ? 'application/wasm' : 'application/octet-stream' } });
    return Object.defineProperty(response, 'url', { value: new URL(address, SITE).href });
  };
  /** As much of it as the package makes of its pixels. */
  class ImageData {
    /** @param {Uint8ClampedArray} data @param {number} width @param {number} height */
    constructor(data, width, height) {
      Object.assign(this, { data, width, height });
    }
  }
  const there = {
    ...globals,
    self: scope,
    // wgpu and onnxruntime-web look for one of these before they look for a navigator.
    ...(postMessage ? { WorkerGlobalScope: class {}, postMessage } : { window: scope }),
    navigator: { gpu: create(browser.options), hardwareConcurrency: 1, userAgent: 'Dawn' },
    location: new URL(`${SITE}/lab.html`),
    fetch: fetched,
    ImageData,
    addEventListener: events.addEventListener.bind(events),
    removeEventListener: events.removeEventListener.bind(events),
    dispatchEvent: events.dispatchEvent.bind(events),
  };
  // Some of them newer versions of Node have, and let nobody assign them.
  for (const [name, value] of Object.entries(there)) Object.defineProperty(scope, name, { value, configurable: true, writable: true });
  // The core reads its laps from Date, whose milliseconds are whole.
  Date.now = () => performance.timeOrigin + performance.now();
  // onnxruntime-web's memory is shared, which Chromium's writeBuffer takes and Node's interface to native code does not.
  const { writeBuffer } = scope.GPUQueue.prototype;
  scope.GPUQueue.prototype.writeBuffer = function (/** @type {any} */ buffer, /** @type {number} */ offset, /** @type {any} */ data, /** @type {number[]} */ ...range) {
    const shared = data.buffer instanceof SharedArrayBuffer;
    return writeBuffer.call(this, buffer, offset, shared ? data.slice() : data, ...range);
  };
  // What the null backend gives to read is whatever lay in memory, and the core refuses a picture that is not a number.
  const { getMappedRange } = scope.GPUBuffer.prototype;
  if (browser.options.includes('backend=null')) {
    scope.GPUBuffer.prototype.getMappedRange = function (/** @type {number[]} */ ...range) {
      const bytes = getMappedRange.apply(this, range);
      if (this.usage & scope.GPUBufferUsage.MAP_READ) new Uint8Array(bytes).fill(0);
      return bytes;
    };
  }
}
