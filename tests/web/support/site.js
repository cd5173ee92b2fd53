import path from 'node:path';
import { POLICY, createSite } from '../../../www/serve.mjs';
import { mimeTypes } from './dev-dependencies.js';

/**
 * What a test does to a request before the site answers it; true means that it was answered.
 *
 * @typedef {(request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => boolean} Meddle
 */

/** A site on a port of its own that remembers what was asked of it and can misbehave. */
export class Site {
  /** Paths asked for, in order. @type {string[]} */
  asked = [];
  /** @type {Meddle | undefined} */
  meddle;
  /** Files that exist only here, by path; they come before those on disk. @type {Map<string, string | Uint8Array>} */
  files = new Map();
  #server;
  #port = 0;

  /** @param {Record<string, string>} [mounts] */
  constructor(mounts) {
    this.#server = createSite({
      mounts,
      intercept: (request, response) => {
        this.asked.push(String(request.url));
        return (this.meddle?.(request, response) ?? false) || this.#answer(request, response);
      },
    });
  }

  /** @param {Record<string, string>} [mounts] */
  static async start(mounts) {
    const site = new Site(mounts);
    await site.#listen();
    return site;
  }

  get url() {
    return `http://localhost:${this.#port}/`;
  }

  /** @param {string} ending */
  countOf(ending) {
    return this.asked.filter((path) => path.endsWith(ending)).length;
  }

  /** Stops listening and drops every connection, as when the network is gone. */
  async goOffline() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Comes back at the same address. */
  async comeBack() {
    await this.#listen();
  }

  /** @type {Meddle} */
  #answer(request, response) {
    const { pathname } = new URL(String(request.url), this.url);
    const content = this.files.get(pathname);
    if (content === undefined) return false;
    response.writeHead(200, {
      'content-type': mimeTypes.contentType(path.extname(pathname)) || 'application/octet-stream',
      'content-length': Buffer.byteLength(content),
      'content-security-policy': POLICY,
      'cache-control': 'no-cache',
    }).end(content);
    return true;
  }

  async #listen() {
    await new Promise((resolve) => this.#server.listen(this.#port, () => resolve(undefined)));
    this.#port = /** @type {import('node:net').AddressInfo} */ (this.#server.address()).port;
  }
}

/**
 * Sends the head and the first bytes of a file and then breaks the connection.
 *
 * @param {import('node:http').ServerResponse} response
 * @param {Uint8Array} bytes
 * @param {number} length how many bytes the head promises
 */
export function cutAfter(response, bytes, length) {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': length });
  response.write(bytes, () => setTimeout(() => response.destroy(), 50));
}
