/**
 * @typedef {{ name: string, pid: number, tid: number, tdur?: number, args?: { name?: string } }} TraceEvent
 */

/**
 * The longest task of the page's main thread while `action` runs, in milliseconds of processor time. The clock on the
 * wall, which the browser's own `longtask` entries go by, also counts the time that a busy machine gave to others.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {import('playwright-core').Page} page
 * @param {() => Promise<unknown>} action must start a worker, which tells the page's process from others
 * @returns {Promise<number>}
 */
export async function longestTask(browser, page, action) {
  await browser.startTracing(page, { categories: ['toplevel', '__metadata'] });
  await action();
  /** @type {TraceEvent[]} */
  const events = JSON.parse((await browser.stopTracing()).toString()).traceEvents;
  /** @param {string} name */
  const threads = (name) => events.filter((event) => event.name === 'thread_name' && event.args?.name === name);
  const worker = threads('DedicatedWorker thread')[0];
  const main = threads('CrRendererMain').find(({ pid }) => pid === worker?.pid);
  const tasks = events.filter(({ name, pid, tid }) => name === 'ThreadControllerImpl::RunTask' && pid === main?.pid && tid === main.tid);
  if (tasks.length === 0) throw new Error('The trace has no task of the page: has Chromium renamed its trace events?');
  return Math.max(...tasks.map(({ tdur }) => tdur ?? 0)) / 1000;
}
