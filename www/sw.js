// Lets the page open without a network. The weights are not here: the package keeps them in IndexedDB.
//
// Network first, always: the cache answers only when the network does not, so nothing old outlives a reload that
// reaches the server, and every answer that comes fresh replaces the one that is kept. No version to bump.

const CACHE = 'inkbloom-page';

/** Everything the page is made of; requests for anything else pass by untouched. */
const PAGE = [
  './', './style.css', './icon.svg', './inkbloom.webmanifest', './app.js', './brush.js', './ideas.js', './progress.js', './scissors.js', './start-picture.js', './sticker.js', './words.js',
  './pkg/index.js', './pkg/worker.js', './pkg/inkbloom_bg.wasm',
].map((file) => new URL(file, self.location.href).href);

const scope = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));

/** @param {Request} request */
function keyOf(request) {
  const url = new URL(request.url);
  // A link with a recipe in its query is the same page.
  url.search = '';
  url.hash = '';
  return url.href.replace(/\/index\.html$/, '/');
}

/**
 * @param {string} key
 * @param {FetchEvent} event
 */
async function networkFirst(key, event) {
  let response;
  try {
    response = await fetch(event.request);
  } catch (error) {
    const kept = await caches.match(key, { cacheName: CACHE });
    if (kept) return kept;
    throw error;
  }
  if (response.ok) {
    const copy = response.clone();
    // Beside the answer, not before it; where there is no room, the page works on without a copy.
    event.waitUntil(caches.open(CACHE).then((cache) => cache.put(key, copy)).catch(() => {}));
  }
  return response;
}

scope.addEventListener('install', (event) => {
  // The first visit fetched these before this worker existed; `no-cache` makes that a cheap revalidation.
  event.waitUntil(caches.open(CACHE)
    .then((cache) => cache.addAll(PAGE.map((url) => new Request(url, { cache: 'no-cache' }))))
    .then(() => scope.skipWaiting()));
});

scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()));

scope.addEventListener('fetch', (event) => {
  const key = keyOf(event.request);
  if (event.request.method === 'GET' && PAGE.includes(key)) event.respondWith(networkFirst(key, event));
});
