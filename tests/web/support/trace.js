/** @typedef {{ name: string, pid: number, tid: number, tdur?: number }} TraceEvent */

/** Left by the page's main thread, to know it by among all processes and threads of the browser. */
const MARK = 'inkbloom-main-thread';

/**
 * The longest task of the page's main thread while `action` runs, in milliseconds of processor time. The clock on the
 * wall, which the browser's own `longtask` entries go by, also counts the time that a busy machine gave to others.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {import('playwright-core').Page} page
 * @param {() => Promise<unknown>} action
 * @returns {Promise<number>}
 */
export async function longestTask(browser, page, action) {
  await browser.startTracing(page, { categories: ['toplevel', 'blink.user_timing'] });
  await action();
  await page.evaluate((mark) => performance.mark(mark), MARK);
  /** @type {TraceEvent[]} */
  const events = JSON.parse((await browser.stopTracing()).toString()).traceEvents;
  const main = events.find(({ name }) => name === MARK);
  const tasks = events.filter(({ name, pid, tid }) => name === 'ThreadControllerImpl::RunTask' && pid === main?.pid && tid === main.tid);
  if (tasks.length === 0) throw new Error('The trace has no task of the page: has Chromium renamed its trace events?');
  return Math.max(...tasks.map(({ tdur }) => tdur ?? 0)) / 1000;
}
