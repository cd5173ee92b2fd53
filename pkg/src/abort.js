import { abortedError } from './errors.js';

/**
 * The caller hears of an abort at once, whatever the work does.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export function untilAborted(work, signal) {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError());
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/**
 * Does the work with a signal that aborts with any of these. (`AbortSignal.any` is younger than browsers in use.)
 *
 * @template T
 * @param {(AbortSignal | null | undefined)[]} signals
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withAnyOf(signals, work) {
  const any = new AbortController();
  const abort = () => any.abort();
  for (const signal of signals) {
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort, { once: true });
  }
  try {
    return await work(any.signal);
  } finally {
    for (const signal of signals) signal?.removeEventListener('abort', abort);
  }
}
