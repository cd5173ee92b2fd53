// Serves the page as a plain static host would: www/ at /, the built package at /pkg/.
//   node www/serve.mjs          PORT=8000 by default; PORT=0 takes any free port
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.map': 'application/json; charset=utf-8',
  '.webmanifest': 'application/manifest+json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.wasm': 'application/wasm',
  '.bin': 'application/octet-stream',
};

/** @param {string} file */
export const typeOf = (file) => TYPES[path.extname(file)] ?? 'application/octet-stream';

/** The strictest policy that the page needs: a stranger's site may have it, so we live under it ourselves. */
export const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

/**
 * @typedef {object} SiteOptions
 * @property {Record<string, string>} [mounts] folders by path prefix; the longest prefix wins
 * @property {(request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => boolean} [intercept]
 *   looks at every request first; true means that it answered
 */

/** @param {string} folder */
export const mountsOfPage = (folder = path.join(here, '..')) => ({
  '/': path.join(folder, 'www'),
  '/pkg/': path.join(folder, 'pkg', 'dist'),
});

/**
 * @param {Record<string, string>} mounts
 * @param {string} pathname
 * @returns {string | undefined} the file's path, undefined outside every mount
 */
function locate(mounts, pathname) {
  const prefix = Object.keys(mounts).filter((key) => pathname.startsWith(key)).sort((a, b) => b.length - a.length)[0];
  if (prefix === undefined) return undefined;
  const file = path.join(mounts[prefix], pathname.slice(prefix.length));
  return file.startsWith(path.join(mounts[prefix], path.sep)) || file === path.join(mounts[prefix]) ? file : undefined;
}

/**
 * @param {string | undefined} header
 * @param {number} size
 * @returns {{ start: number, end: number } | undefined}
 */
function parseRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const start = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === '' || match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  return { start, end };
}

/**
 * @param {SiteOptions} [options]
 * @returns {import('node:http').Server}
 */
export function createSite({ mounts = mountsOfPage(), intercept } = {}) {
  return createServer(async (request, response) => {
    if (intercept?.(request, response)) return;
    /** @param {number} status @param {string} text */
    const refuse = (status, text) => response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`);

    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405, 'Only GET and HEAD are served here.');
    let pathname;
    try {
      pathname = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    } catch {
      return refuse(400, 'That is not an address.');
    }
    if (pathname.endsWith('/')) pathname += 'index.html';
    const file = locate(mounts, pathname);
    const found = file === undefined ? undefined : await stat(file).catch(() => undefined);
    if (file === undefined || !found?.isFile()) return refuse(404, `There is no ${pathname} here.`);

    const etag = `"${createHash('sha1').update(`${found.size} ${found.mtimeMs}`).digest('base64url')}"`;
    const headers = {
      'content-type': typeOf(file),
      'content-security-policy': POLICY,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-cache',
      'accept-ranges': 'bytes',
      etag,
    };
    if (request.headers['if-none-match'] === etag) return response.writeHead(304, headers).end();

    const range = parseRange(request.headers.range, found.size);
    if (range && range.start > range.end) {
      return response.writeHead(416, { ...headers, 'content-range': `bytes */${found.size}` }).end();
    }
    response.writeHead(range ? 206 : 200, {
      ...headers,
      'content-length': range ? range.end - range.start + 1 : found.size,
      ...(range && { 'content-range': `bytes ${range.start}-${range.end}/${found.size}` }),
    });
    if (request.method === 'HEAD' || found.size === 0) return response.end();
    createReadStream(file, range).on('error', () => response.destroy()).pipe(response);
    return undefined;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = createSite();
  server.on('error', (error) => {
    console.error(`The server did not start: ${error.message}. Choose another port, for example PORT=8123.`);
    process.exit(1);
  });
  server.listen(Number(process.env.PORT ?? 8000), () => {
    const address = /** @type {import('node:net').AddressInfo} */ (server.address());
    console.log(`Inkbloom is at http://localhost:${address.port}/ (stop with Ctrl+C)`);
  });
}
