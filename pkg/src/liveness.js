/**
 * How a page learns that a worker is gone: browsers do not tell. A worker that computes cannot answer for as long as a
 * step takes, so being silent and being dead are told apart by a lock that the worker holds and that the browser gives on
 * when the worker ends, however it ends.
 *
 * @param {string} lock
 * @param {() => void} gone
 * @returns {() => void} stops watching
 */
export function watchLock(lock, gone) {
  const watching = new AbortController();
  navigator.locks.request(lock, { signal: watching.signal }, gone).catch(() => {});
  return () => watching.abort();
}

/** Without locks (pages that are not served securely) only silence tells, and it must be longer than the longest step. */
const SILENCE_MS = 180_000;
const PING_MS = 10_000;

/**
 * @param {EventTarget} worker
 * @param {() => void} ping asks for an answer
 * @param {() => void} gone
 * @returns {() => void} stops watching
 */
export function watchSilence(worker, ping, gone) {
  let silentMs = 0;
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;
  const listen = () => {
    timer = setTimeout(() => {
      silentMs += PING_MS;
      if (silentMs >= SILENCE_MS) return gone();
      ping();
      return listen();
    }, PING_MS);
  };
  listen();
  const heard = () => {
    silentMs = 0;
  };
  worker.addEventListener('message', heard);
  return () => {
    clearTimeout(timer);
    worker.removeEventListener('message', heard);
  };
}
