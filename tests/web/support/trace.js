/**
 * @typedef {{ name: string, ph: string, pid: number, tid: number, dur?: number, tdur?: number, args?: { name?: string } }} TraceEvent
 */

/**
 * The longest task of the page's main thread while `action` runs, in milliseconds of processor time. The clock on the
 * wall would also count the time that a busy machine gave to others.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {import('playwright-core').Page} page
 * @param {() => Promise<unknown>} action
 * @returns {Promise<number>}
 */
export async function longestTask(browser, page, action) {
  await browser.startTracing(page, { categories: ['toplevel', '__metadata'] });
  try {
    await action();
  } finally {
    var trace = await browser.stopTracing();
  }
  /** @type {TraceEvent[]} */
  const events = JSON.parse(trace.toString()).traceEvents;
  console.log(events.length, [...new Set(events.map(e=>e.name))].slice(0,60));
  console.log(events.filter(e=>e.name==='thread_name').map(e=>[e.pid,e.tid,e.args?.name].join()).slice(0,60));
  const top=events.filter(e=>e.tdur).sort((a,b)=>b.tdur-a.tdur).slice(0,15); console.log(top.map(e=>[e.name,e.pid,e.tid,e.dur,e.tdur].join()));
  return 0;
}
