/** How long the first visit waits for what will keep the page: longer, and a page that is not kept is the lesser evil. */
const PATIENCE_MS = 3000;

/**
 * Offline visits need the page as well as the model. At the first visit the engine's files are only asked for once the
 * service worker sees it, so that it keeps what comes by and need not fetch megabytes a second time.
 *
 * @returns {{ watched: Promise<void>, keep: () => void }} `keep` makes sure that everything is kept, once all is loaded
 */
export function keepPage() {
  let container;
  try {
    // A sandboxed frame throws at the mention of it.
    container = navigator.serviceWorker;
  } catch {
    container = undefined;
  }
  if (!container) return { watched: Promise.resolve(), keep() {} };
  const workers = container;
  const controlled = new Promise((resolve) => {
    if (workers.controller) resolve(undefined);
    else workers.addEventListener('controllerchange', resolve, { once: true });
  });
  const refused = new Promise((resolve) => workers.register('./sw.js').catch(resolve));
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  return {
    watched: Promise.race([controlled, refused, late]).then(() => {}),
    keep: () => workers.ready.then(({ active }) => active?.postMessage('keep'), () => {}),
  };
}
