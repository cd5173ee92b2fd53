import assert from 'node:assert/strict';

/** @typedef {import('../../../pkg/src/load.js').Progress} Progress */

/** @param {Progress[]} events */
export function downloads(events) {
  return events.flatMap((event) => (event.phase === 'download' ? [event] : []));
}

/**
 * Bytes never go back and end at the total, and a load ends ready.
 *
 * @param {Progress[]} events
 */
export function assertHonest(events) {
  const told = downloads(events);
  told.reduce((before, { loaded }) => {
    assert.ok(loaded >= before, `${loaded} came after ${before}`);
    return loaded;
  }, 0);
  assert.ok(told.length > 0, 'no download was told');
  assert.equal(told.at(-1)?.loaded, told.at(-1)?.total);
  assert.equal(events.at(-1)?.phase, 'ready');
}
