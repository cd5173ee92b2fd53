// Serves the page as a plain static host would: www/ at /, the built package at /pkg/.
//   node www/serve.mjs          PORT=8000 by default; PORT=0 takes any free port
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

// What the page is built with lies in one place.
/** @type {(name: string) => any} */
const installed = createRequire(new URL('../pkg/package.json', import.meta.url));
const compression = installed('compression');
const serveStatic = installed('serve-static');

const here = path.dirname(fileURLToPath(import.meta.url));

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

const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
};

/**
 * @param {SiteOptions} [options]
 * @returns {import('node:http').Server}
 */
export function createSite({ mounts = mountsOfPage(), intercept } = {}) {
  // Weights do not get smaller, and their length is what progress goes by.
  const compress = compression({
    filter: (/** @type {import('node:http').IncomingMessage} */ request, /** @type {import('node:http').ServerResponse} */ response) => response.getHeader('content-type') !== 'application/octet-stream' && compression.filter(request, response),
  });
  // The longest prefix first.
  const folders = Object.entries(mounts).sort(([one], [other]) => other.length - one.length).map(([prefix, folder]) => ({
    prefix,
    serve: serveStatic(folder, { redirect: false, setHeaders: (/** @type {import('node:http').ServerResponse} */ response) => setHeaders(response) }),
  }));
  return createServer((request, response) => {
    if (intercept?.(request, response)) return;
    compress(request, response, () => {
      /** @param {number} status @param {string} text */
      const refuse = (status, text) => response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
      const asked = request.url ?? '/';
      if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405, 'Only GET and HEAD are served here.');
      const folder = folders.find(({ prefix }) => asked.startsWith(prefix));
      if (!folder) return refuse(404, `There is no ${asked} here.`);
      request.url = asked.slice(folder.prefix.length - 1);
      return folder.serve(request, response, (/** @type {{ status?: number } | undefined} */ error) => refuse(error?.status ?? 404, `There is no ${asked} here.`));
    });
  });
}

/** @param {import('node:http').ServerResponse} response */
function setHeaders(response) {
  for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
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
