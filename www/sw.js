// Lets the page open without a network. The weights are not here: the package keeps them in IndexedDB.
//
// Network first, always: what is kept answers only when the network does not, or not soon, so nothing old outlives a
// reload that reaches the server, and every answer that comes fresh replaces the one that is kept. No version to bump.

const CACHE = 'inkbloom-page';
/** How long the network may be silent before what is kept answers in its place. */
const PATIENCE_MS = 3000;
/** How long it is not asked again then: a page is many files, and nobody waits for each of them. */
const PAUSE_MS = 15_000;
/** Large: it may come slowly, and the page that loads it keeps it on the way. */
const ENGINE = './pkg/inkbloom_bg.wasm';

/** Everything the page is made of; requests for anything else pass by untouched. */
const PAGE = [
  './', './style.css', './icon.svg', './inkbloom.webmanifest', './early.js', './app.js', './brush.js', './cut.js', './dom.js', './emoji-names.js',
  './engine.js', './footer.js', './gallery.js', './ideas.js', './messages.js', './moving.js', './offline.js', './progress.js', './prompt.js', './reading.js', './recipe.js',
  './scissors.js', './settings.js', './stage.js', './start-picture.js', './sticker.js', './store.js', './styles.js', './words.js', './lib/idb.js',
  './models/sticker/words.txt', './pkg/index.js', './pkg/worker.js', ENGINE,
].map((file) => new URL(file, self.location.href).href);

/** Fetched when an animation is first saved, and kept from then on. */
const LATER = ['./pkg/webp_enc_simd.wasm', './pkg/webm.js'].map((file) => new URL(file, self.location.href).href);

/** What `./build.sh site` named after what it holds is the same for ever. */
const NAMED_BY_CONTENT = /-[0-9a-f]{8}\.(js|css|svg|wasm|png)$/;

const scope = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));

/** Until when the network is taken for silent. */
let silentUntil = 0;

/** @param {string} address */
function keyOf(address) {
  const url = new URL(address);
  // A link with a query is the same page.
  url.search = '';
  url.hash = '';
  return url.href.replace(/\/index\.html$/, '/');
}

/**
 * @param {string} key
 * @param {FetchEvent} event
 */
async function answer(key, event) {
  const kept = await caches.match(key, { cacheName: CACHE }).catch(() => undefined);
  if (!kept) return fresh(key, event, undefined);
  if (NAMED_BY_CONTENT.test(key) || Date.now() < silentUntil) return kept;
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const response = await fresh(key, event, patience.signal);
    // A server in trouble is no better than none, and neither is the page of a hotel that wants a password first.
    return response.status >= 500 || isStranger(key, response) ? kept : response;
  } catch {
    silentUntil = Date.now() + PAUSE_MS;
    return kept;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @param {string} key
 * @param {FetchEvent} event
 * @param {AbortSignal | undefined} patience
 */
async function fresh(key, event, patience) {
  const response = await fetch(event.request, { signal: patience });
  if (!response.ok || isStranger(key, response)) return response;
  if (!patience || key.endsWith('.wasm')) {
    event.waitUntil(keep(key, response.clone()));
    return response;
  }
  // A small file is only there when all of it is: a connection may die after the first bytes. Its bytes are ours then,
  // whatever becomes of the request.
  const headers = new Headers(response.headers);
  headers.delete('content-encoding');
  headers.delete('content-length');
  const whole = new Response(await response.blob(), { status: response.status, headers });
  event.waitUntil(keep(key, whole.clone()));
  return whole;
}

/** Whether a web page stands in a file's place. @param {string} key @param {Response} response */
function isStranger(key, response) {
  return !key.endsWith('/') && (response.headers.get('content-type') ?? '').startsWith('text/html');
}

/** Where there is no room, the page works on without a copy. @param {string} key @param {Response} response */
async function keep(key, response) {
  const cache = await caches.open(CACHE).catch(() => undefined);
  await cache?.put(key, response).catch(() => {});
}

/** Fetches what is not kept yet: the first visit's page was there before this worker. */
async function keepAll() {
  const cache = await caches.open(CACHE);
  const kept = new Set((await cache.keys()).map(({ url }) => url));
  await Promise.all(PAGE.filter((key) => !kept.has(key)).map(async (key) => {
    const response = await fetch(key);
    if (response.ok && !isStranger(key, response)) await cache.put(key, response);
  }));
}

/** Drops what an earlier page was made of. */
async function forgetOld() {
  const cache = await caches.open(CACHE);
  const old = (await cache.keys()).filter(({ url }) => !PAGE.includes(url) && !LATER.includes(url));
  await Promise.all(old.map((request) => cache.delete(request)));
}

scope.addEventListener('install', () => scope.skipWaiting());

scope.addEventListener('activate', (event) => event.waitUntil(forgetOld().catch(() => {}).then(() => scope.clients.claim())));

scope.addEventListener('message', (event) => event.waitUntil(keepAll().catch(() => {})));

scope.addEventListener('fetch', (event) => {
  const key = keyOf(event.request.url);
  // A page that is newer than this worker asks for names that it does not know yet.
  if (event.request.method === 'GET' && (PAGE.includes(key) || LATER.includes(key) || NAMED_BY_CONTENT.test(key))) event.respondWith(answer(key, event));
});
