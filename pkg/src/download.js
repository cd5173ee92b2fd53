import { InkbloomError } from './errors.js';
import { shownAddress } from './model-url.js';

/**
 * How stubborn a download is.
 *
 * @typedef {object} Patience
 * @property {number} attempts
 * @property {number} backoffMs before the second attempt; doubles each time
 * @property {number} stallMs without a byte, after which an attempt counts as failed
 */

/** @type {Patience} */
export const PATIENCE = { attempts: 4, backoffMs: 500, stallMs: 30_000 };

/** One attempt's failure. `final` means that trying again cannot help. */
class AttemptFailed extends Error {
  /**
   * @param {string} reason
   * @param {{ final?: boolean, cause?: unknown }} [options]
   */
  constructor(reason, { final = false, cause } = {}) {
    super(reason, { cause });
    this.final = final;
  }
}

/** `download-failed`, with whether the server could not be reached at all (then a stored model may serve). */
export class DownloadFailed extends InkbloomError {
  /**
   * @param {string} url
   * @param {AttemptFailed} last
   */
  constructor(url, last) {
    super('download-failed', `${shownAddress(url)} could not be downloaded: ${last.message}.${last.final ? '' : ' Check the connection and try again; the parts that arrived whole are kept.'}`, { cause: last });
    this.unreachable = !last.final;
  }
}

/**
 * What hosts answer with success in place of a file: a single-page app's index for whatever is missing, the page of a
 * captive portal or a login, the pointer where Git LFS keeps the file elsewhere.
 *
 * @type {[beginning: RegExp, reason: string][]}
 */
const IMPOSTORS = [
  [/^[\s\uFEFF]*(<!--[^]*?-->\s*)?<(!doctype\s+html|html|head|body)\b/i, 'the address answered with a web page, so the file is probably not there; check the address'],
  [/^version https:\/\/git-lfs\.github\.com\//, 'the address answered with a Git LFS pointer and not with the file that it points to; upload the file itself'],
];

/** Enough of a file to know what it is. */
const BEGINNING = 512;

/** @param {string} beginning of what should be another file */
function refuseImpostor(beginning) {
  const impostor = IMPOSTORS.find(([pattern]) => pattern.test(beginning));
  if (impostor) throw new AttemptFailed(impostor[1], { final: true });
}

/**
 * @typedef {object} DownloadOptions
 * @property {RequestCache} [cache]
 * @property {Patience} [patience]
 */

/**
 * Fetches and reads one address, trying again after network errors, stalls and busy servers. (Retry libraries time out
 * whole requests; here only silence counts, for a slow line may take an hour.)
 *
 * @template T
 * @param {string} url
 * @param {(response: Response, alive: () => void) => Promise<T>} read calls `alive` whenever bytes arrive
 * @param {DownloadOptions} options
 * @returns {Promise<T>}
 */
export async function fetchAndRead(url, read, { cache, patience = PATIENCE }) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await attemptOnce(url, read, cache, patience.stallMs);
    } catch (error) {
      if (!(error instanceof AttemptFailed)) throw error;
      if (error.final || attempt >= patience.attempts) throw new DownloadFailed(url, error);
      await new Promise((resolve) => setTimeout(resolve, patience.backoffMs * 2 ** (attempt - 1)));
    }
  }
}

/**
 * @template T
 * @param {string} url
 * @param {(response: Response, alive: () => void) => Promise<T>} read
 * @param {RequestCache | undefined} cache
 * @param {number} stallMs
 * @returns {Promise<T>}
 */
async function attemptOnce(url, read, cache, stallMs) {
  const stalled = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stalled.abort(), stallMs);
  };
  try {
    alive();
    const response = await fetch(url, { signal: stalled.signal, cache });
    if (!response.ok) throw statusFailure(response);
    alive();
    return await read(response, alive);
  } catch (error) {
    if (stalled.signal.aborted) throw new AttemptFailed(`no bytes came for ${Math.round(stallMs / 1000)} seconds`);
    // `fetch` and body readers report the network as TypeError; anything else is the reader's own verdict.
    if (!(error instanceof TypeError)) throw error;
    throw new AttemptFailed('the server cannot be reached or the connection broke', { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** @param {Response} response */
function statusFailure({ status }) {
  const busy = status >= 500 || status === 408 || status === 429;
  const reason = status === 404 ? 'there is no such file (HTTP 404); check the address' : `the server answered with HTTP ${status}`;
  return new AttemptFailed(reason, { final: !busy });
}

/**
 * @param {Response} response
 * @param {() => void} alive
 */
async function* chunks(response, alive) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      yield value;
    }
  } finally {
    // Also when the consumer has seen enough: the rest must not go on arriving.
    reader.cancel().catch(() => {});
  }
}

/**
 * @param {string} url
 * @param {DownloadOptions} [options]
 * @returns {Promise<{ text: string, foundAt: string }>} with the address that answered, after redirects
 */
export function downloadText(url, options = {}) {
  return fetchAndRead(url, async (response, alive) => {
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of chunks(response, alive)) text += decoder.decode(chunk, { stream: true });
    text += decoder.decode();
    refuseImpostor(text.slice(0, BEGINNING));
    return { text, foundAt: response.url };
  }, options);
}

/**
 * Rejects when what is at an address only stands in for the file: for readers that saw no more than that it was wrong.
 *
 * @param {string} url
 * @param {DownloadOptions} [options]
 * @returns {Promise<Headers>}
 */
export function expectTheFile(url, options = {}) {
  return fetchAndRead(url, async (response, alive) => {
    for await (const chunk of chunks(response, alive)) {
      refuseImpostor(beginningOf(chunk));
      break;
    }
    return response.headers;
  }, options);
}

/** @param {Uint8Array} bytes */
function beginningOf(bytes) {
  return new TextDecoder().decode(bytes.subarray(0, BEGINNING));
}

/**
 * Reads exactly `size` bytes.
 *
 * @param {string} url
 * @param {number} size
 * @param {(loaded: number) => void} onBytes bytes of this file so far; starts over with each attempt
 * @param {DownloadOptions} [options]
 * @returns {Promise<Uint8Array>}
 */
export function downloadBytes(url, size, onBytes, options = {}) {
  return fetchAndRead(url, async (response, alive) => {
    const bytes = new Uint8Array(size);
    let loaded = 0;
    for await (const chunk of chunks(response, alive)) {
      if (loaded === 0) refuseImpostor(beginningOf(chunk));
      if (loaded + chunk.length > size) throw wrongSize(url, size, 'more');
      bytes.set(chunk, loaded);
      loaded += chunk.length;
      onBytes(loaded);
    }
    if (loaded < size) throw wrongSize(url, size, `only ${loaded}`);
    return bytes;
  }, options);
}

/**
 * A whole answer of another length is not this shard.
 *
 * @param {string} url
 * @param {number} size
 * @param {string} got
 */
function wrongSize(url, size, got) {
  return new InkbloomError('corrupt-weights', `${shownAddress(url)} should hold ${size} bytes and holds ${got}. The file at that address is not the one that the manifest names: upload the bundle again.`);
}
