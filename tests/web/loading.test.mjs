// Downloading, checking and storing, with the real modules of pkg/src over real HTTP; IndexedDB and the engine are
// stand-ins. What a browser does with the same is in browser.test.mjs.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { bringMissing, loadBundle } from '../../pkg/src/load.js';
import { resolveModel } from '../../pkg/src/model-url.js';
import { Store, withStore } from '../../pkg/src/store.js';
import { installFakeIndexedDB } from './support/dev-dependencies.js';
import { drawsWith, openFake } from './support/fake-engine.js';
import { assertHonest, downloads } from './support/honesty.js';
import { sha256 } from './support/hash.js';
import { Site, cutAfter } from './support/site.js';

const PATIENCE = { attempts: 3, backoffMs: 5, stallMs: 400 };
const FOLDER = '/models/test/';

/** @type {Site} */
let site;

/** @param {Uint8Array[]} shards @param {object} [changes] */
function publish(shards, changes = {}) {
  const manifest = {
    format: 'inkbloom-bundle',
    version: 1,
    shards: shards.map((bytes, index) => ({ file: `shard-00${index}.bin`, size: bytes.length, sha256: sha256(bytes) })),
    ...changes,
  };
  site.files.set(`${FOLDER}manifest.json`, JSON.stringify(manifest));
  shards.forEach((bytes, index) => site.files.set(`${FOLDER}shard-00${index}.bin`, bytes));
}

/** @param {string} [model] */
async function load(model = 'models/test/') {
  /** @type {import('../../pkg/src/load.js').Progress[]} */
  const events = [];
  /** @type {import('../../pkg/src/load.js').LoadContext} */
  const context = {
    address: resolveModel(model, site.url),
    device: 'cpu',
    open: openFake,
    report: (event) => events.push(event),
    patience: PATIENCE,
  };
  const result = await loadBundle(context);
  return { ...result, context, events };
}

const shardPaths = () => site.asked.filter((path) => path.includes('.bin'));
const shardRequests = () => site.asked.filter((path) => path.endsWith('.bin')).map((path) => path.slice(FOLDER.length));

beforeEach(async () => {
  installFakeIndexedDB();
  site = await Site.start({});
});

afterEach(() => site.goOffline().catch(() => {}));

describe('loading a bundle', () => {
  const shards = [randomBytes(300_000), randomBytes(200_000), randomBytes(100_000)];

  it('downloads once, tells every byte, and stores the model', async () => {
    publish(shards);
    const { events, storageNote } = await load();
    assertHonest(events);
    assert.equal(downloads(events).at(-1)?.total, 600_000);
    assert.equal(events[0].phase, 'start');
    assert.equal(events.at(-1)?.phase, 'ready');
    assert.equal(storageNote, undefined);
    const list = await withStore((store) => store.list());
    assert.deepEqual(list, [{ id: `${site.url}models/test/`, bytes: 600_000, complete: true }]);
  });

  it('takes stored shards and asks only for the manifest the second time', async () => {
    publish(shards);
    await load();
    site.asked = [];
    const { events } = await load();
    assertHonest(events);
    assert.ok(downloads(events).every(({ stored }) => stored));
    assert.deepEqual(site.asked, [`${FOLDER}manifest.json`]);
  });

  it('loads from the store when the network is gone', async () => {
    publish(shards);
    await load();
    await site.goOffline();
    const { events } = await load();
    assertHonest(events);
    await site.comeBack();
  });

  it('says which address failed when there is neither network nor model', async () => {
    await site.goOffline();
    await assert.rejects(load(), { code: 'download-failed', message: /models\/test\/manifest\.json could not be downloaded/ });
    await site.comeBack();
  });

  it('goes on at the last whole shard after a download was cut', async () => {
    publish(shards);
    site.meddle = (request, response) => {
      if (!request.url?.endsWith('shard-001.bin')) return false;
      cutAfter(response, shards[1].subarray(0, 50_000), shards[1].length);
      return true;
    };
    await assert.rejects(load(), { code: 'download-failed', message: /shard-001\.bin could not be downloaded/ });
    assert.equal(site.countOf('shard-001.bin'), PATIENCE.attempts);
    const [partly] = await withStore((store) => store.list());
    assert.deepEqual([partly.bytes, partly.complete], [300_000, false]);
    site.meddle = undefined;
    site.asked = [];
    const { events } = await load();
    assertHonest(events);
    assert.deepEqual(shardRequests(), ['shard-001.bin', 'shard-002.bin']);
  });

  it('tries again within one visit when a connection breaks once', async () => {
    publish(shards);
    let cuts = 1;
    site.meddle = (request, response) => {
      if (!request.url?.endsWith('shard-001.bin') || cuts-- <= 0) return false;
      cutAfter(response, shards[1].subarray(0, 150_000), shards[1].length);
      return true;
    };
    const { events } = await load();
    assertHonest(events);
    assert.equal(site.countOf('shard-001.bin'), 2);
  });

  it('tries again when a server stalls or is busy, and not when a file is missing', async () => {
    publish(shards);
    let stalls = 1;
    let busy = 1;
    site.meddle = (request, response) => {
      if (request.url?.endsWith('shard-000.bin') && stalls-- > 0) {
        response.writeHead(200).write(shards[0].subarray(0, 1000));
        return true;
      }
      if (request.url?.endsWith('shard-001.bin') && busy-- > 0) {
        response.writeHead(503).end();
        return true;
      }
      return false;
    };
    assertHonest((await load()).events);
    assert.deepEqual([site.countOf('shard-000.bin'), site.countOf('shard-001.bin')], [2, 2]);

    await withStore((store) => store.clear());
    site.files.delete(`${FOLDER}shard-002.bin`);
    site.asked = [];
    await assert.rejects(load(), { code: 'download-failed', message: /shard-002\.bin .*no such file \(HTTP 404\)/ });
    assert.equal(site.countOf('shard-002.bin'), 1);
  });

  it('refuses a shard with a flipped byte, fetches it again, and stores only the good one', async () => {
    publish(shards);
    let bad = 1;
    site.meddle = (request, response) => {
      if (!request.url?.endsWith('shard-001.bin') || bad-- <= 0) return false;
      const flipped = Uint8Array.from(shards[1]);
      flipped[777] ^= 1;
      response.end(flipped);
      return true;
    };
    assertHonest((await load()).events);
    assert.equal(site.countOf('shard-001.bin'), 2);
    site.asked = [];
    await load();
    assert.deepEqual(shardRequests(), []);
  });

  it('gives up with corrupt-weights when the shard is bad twice, and stores nothing of it', async () => {
    publish(shards);
    const flipped = Uint8Array.from(shards[1]);
    flipped[0] ^= 0x80;
    site.files.set(`${FOLDER}shard-001.bin`, flipped);
    await assert.rejects(load(), { code: 'corrupt-weights', message: /shard-001\.bin/ });
    assert.equal(site.countOf('shard-001.bin'), 2);
    const [partly] = await withStore((store) => store.list());
    assert.equal(partly.complete, false);
    assert.equal(await withStore((store) => store.shard(partly.id, { file: '', size: 200_000, sha256: sha256(shards[1]) })), undefined);
  });

  it('finds a stored shard that went bad and replaces it', async () => {
    publish(shards);
    await load();
    const shard = { file: 'shard-002.bin', size: 100_000, sha256: sha256(shards[2]) };
    const model = `${site.url}models/test/`;
    await withStore((store) => store.saveShard(model, shard, randomBytes(100_000)));
    site.asked = [];
    assertHonest((await load()).events);
    assert.deepEqual(shardRequests(), ['shard-002.bin']);
    assert.equal(sha256(await withStore((store) => store.shard(model, shard)) ?? new Uint8Array()), shard.sha256);
  });

  it('does not take an answer of another length for a shard', async () => {
    publish(shards);
    site.files.set(`${FOLDER}shard-000.bin`, randomBytes(39));
    await assert.rejects(load(), { code: 'corrupt-weights', message: /shard-000\.bin should hold 300000 bytes and holds only 39/ });
    site.files.set(`${FOLDER}shard-000.bin`, randomBytes(300_001));
    await assert.rejects(load(), { code: 'corrupt-weights', message: /holds more/ });
  });

  it('downloads only what a new version changed and drops what it left behind', async () => {
    publish(shards);
    await load();
    const changed = randomBytes(150_000);
    publish([shards[0], changed, shards[2]]);
    site.asked = [];
    assertHonest((await load()).events);
    assert.deepEqual(shardRequests(), ['shard-001.bin']);
    const [model] = await withStore((store) => store.list());
    assert.deepEqual([model.bytes, model.complete], [550_000, true]);
  });

  /** What a load says besides progress. @param {import('../../pkg/src/load.js').Progress[]} events */
  const notices = (events) => events.flatMap((event) => (event.phase === 'notice' ? [[event.code, event.message]] : []));

  /** @type {[string, (next: Uint8Array[]) => void, RegExp][]} */
  const halfDeployed = [
    ['a shard is still missing', () => site.files.delete(`${FOLDER}shard-002.bin`), /shard-002\.bin .*HTTP 404/],
    ['a shard is still the old one', () => site.files.set(`${FOLDER}shard-002.bin`, shards[2]), /shard-002\.bin does not have the SHA-256/],
    ['a shard is of another length', () => site.files.set(`${FOLDER}shard-001.bin`, shards[1]), /shard-001\.bin should hold 250000 bytes and holds only 200000/],
    ['a web page stands in for a shard', () => site.files.set(`${FOLDER}shard-002.bin`, '<!doctype html><title>Welcome</title>'), /shard-002\.bin .*web page/],
    ['the manifest is of a version of tomorrow', (next) => publish(next, { version: 99 }), /version 99/],
    ['the manifest is cut off', () => site.files.set(`${FOLDER}manifest.json`, '{"version": 1, "sha'), /JSON/],
  ];
  for (const [what, breakIt, reason] of halfDeployed) {
    it(`draws with what is stored whole, and says so, while an update is on its way: ${what}`, async () => {
      publish(shards);
      await load();
      const next = [shards[0], randomBytes(250_000), randomBytes(100_000)];
      publish(next);
      breakIt(next);
      const { events, model, updateNote, storageNote } = await load();
      assertHonest(events);
      assert.deepEqual(drawsWith(model), shards.map(sha256));
      assert.match(String(updateNote), /^An update of the model is on its way/);
      assert.match(String(updateNote), reason);
      assert.deepEqual(notices(events), [['update', updateNote]]);
      assert.equal(storageNote, undefined);

      // What is stored stays whole, also for a visit without a network, and the update is taken once it is whole.
      await site.goOffline();
      assert.deepEqual(drawsWith((await load()).model), shards.map(sha256));
      await site.comeBack();
      publish(next);
      const updated = await load();
      assert.deepEqual(drawsWith(updated.model), next.map(sha256));
      assert.equal(updated.updateNote, undefined);
      const [stored] = await withStore((store) => store.list());
      assert.deepEqual([stored.bytes, stored.complete], [650_000, true]);
    });
  }

  it('draws with what is stored whole, and says so, when the manifest is gone or a web page stands in for it', async () => {
    publish(shards);
    await load();
    for (const manifest of [undefined, '<html><title>Log in</title></html>']) {
      if (manifest === undefined) site.files.delete(`${FOLDER}manifest.json`);
      else site.files.set(`${FOLDER}manifest.json`, manifest);
      const { events, updateNote } = await load();
      assertHonest(events);
      assert.match(String(updateNote), /^Whether there is an update .*manifest\.json could not be downloaded/);
    }
  });

  it('says nothing of updates without a network', async () => {
    publish(shards);
    await load();
    await site.goOffline();
    const { events, updateNote } = await load();
    assert.deepEqual([notices(events), updateNote], [[], undefined]);
    await site.comeBack();
  });

  it('tells what is wrong with the update when what is stored will not do either', async () => {
    publish(shards);
    await load();
    const model = `${site.url}models/test/`;
    publish([shards[0], randomBytes(250_000)]);
    site.files.delete(`${FOLDER}shard-001.bin`);
    await withStore((store) => store.saveShard(model, { file: '', size: 300_000, sha256: sha256(shards[0]) }, randomBytes(300_000)));
    site.files.delete(`${FOLDER}shard-000.bin`);
    await assert.rejects(load(), { code: 'download-failed', message: /shard-000\.bin .*HTTP 404/ });
  });

  it('refuses a bad manifest before it downloads anything', async () => {
    publish(shards, { version: 99 });
    await assert.rejects(load(), { code: 'bad-model', message: /version 99 .*manifest\.json\)$/ });
    assert.deepEqual(shardRequests(), []);
    assert.deepEqual(await withStore((store) => store.list()), []);
  });

  it('follows shard addresses relative to the manifest', async () => {
    publish(shards);
    const manifest = JSON.parse(String(site.files.get(`${FOLDER}manifest.json`)));
    manifest.shards[0].file = '../text/shard-000.bin';
    site.files.set(`${FOLDER}manifest.json`, JSON.stringify(manifest));
    site.files.set('/models/text/shard-000.bin', shards[0]);
    site.files.delete(`${FOLDER}shard-000.bin`);
    assertHonest((await load()).events);
  });
});

describe('what stands in for a file', () => {
  const shards = [randomBytes(3000)];
  const PAGES = ['<!doctype html><title>Welcome</title>', '\n<!DOCTYPE html PUBLIC "x">', '<!-- app --><html lang="en">', '\uFEFF<html>'];
  for (const page of PAGES) {
    it(`is told with its address: ${JSON.stringify(page)}`, async () => {
      for (const file of ['manifest.json', 'shard-000.bin']) {
        publish(shards);
        site.files.set(FOLDER + file, page);
        site.asked = [];
        await assert.rejects(load(), {
          code: 'download-failed',
          message: new RegExp(`${FOLDER}${file} could not be downloaded: the address answered with a web page, so the file is probably not there`),
        });
        assert.equal(site.countOf(file), 1, 'it was asked for again');
      }
    });
  }

  it('is told of a Git LFS pointer', async () => {
    publish(shards);
    site.files.set(`${FOLDER}shard-000.bin`, `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 3000\n`);
    await assert.rejects(load(), { code: 'download-failed', message: /shard-000\.bin .*Git LFS pointer/ });
  });
});

describe('a model behind a token', () => {
  const shards = [randomBytes(3000), randomBytes(2000)];

  /** Lets in who has the token. */
  function guard() {
    site.meddle = (request, response) => {
      if (new URL(String(request.url), site.url).searchParams.get('token') === 'abc') return false;
      response.writeHead(403).end();
      return true;
    };
  }

  it('is asked for with the token, which is neither stored nor shown', async () => {
    publish(shards);
    guard();
    assertHonest((await load('models/test/?token=abc')).events);
    assert.deepEqual(site.asked, ['manifest.json', 'shard-000.bin', 'shard-001.bin'].map((file) => `${FOLDER}${file}?token=abc`));
    const [stored] = await withStore((store) => store.list());
    assert.equal(stored.id, `${site.url}models/test/`);
    // Tomorrow's token finds the same model.
    site.asked = [];
    site.meddle = undefined;
    await load('models/test/?token=def');
    assert.deepEqual(site.asked, [`${FOLDER}manifest.json?token=def`]);
    guard();
    await withStore((store) => store.clear());
    await assert.rejects(load('models/test/?token=secret'), (error) => {
      const { code, message } = /** @type {import('../../pkg/src/errors.js').InkbloomError} */ (error);
      return code === 'download-failed' && /manifest\.json\?… .*HTTP 403/.test(message) && !message.includes('secret');
    });
  });

  for (const [what, to] of [['with the query', '/releases/7/manifest.json?token=abc'], ['without it', '/releases/7/manifest.json']]) {
    it(`that redirects ${what} is asked for where it was found`, async () => {
      publish(shards);
      shards.forEach((bytes, index) => site.files.set(`/releases/7/shard-00${index}.bin`, bytes));
      site.files.set('/releases/7/manifest.json', String(site.files.get(`${FOLDER}manifest.json`)));
      site.meddle = (request, response) => {
        const url = new URL(String(request.url), site.url);
        if (url.pathname.startsWith(FOLDER)) response.writeHead(302, { location: to }).end();
        else if (url.pathname.endsWith('.bin') && url.searchParams.get('token') !== 'abc') response.writeHead(403).end();
        else return false;
        return true;
      };
      const { events, foundAt } = await load('models/test/?token=abc');
      assertHonest(events);
      assert.equal(foundAt, new URL(to, site.url).href);
      assert.deepEqual(shardPaths(), ['/releases/7/shard-000.bin?token=abc', '/releases/7/shard-001.bin?token=abc']);
    });
  }
});

describe('a bundle of version 2', () => {
  const shards = [randomBytes(30_000), randomBytes(20_000), randomBytes(10_000)];
  const names = ['vae-000-11111111.bin', 'text-000-22222222.bin', 'preview_vae-000-33333333.bin'];

  /** @param {Uint8Array[]} contents */
  function publishNamed(contents) {
    publish(contents, {
      version: 2,
      optional: ['preview_vae'],
      shards: contents.map((bytes, index) => ({ file: names[index], size: bytes.length, sha256: sha256(bytes) })),
    });
    contents.forEach((bytes, index) => site.files.set(`${FOLDER}${names[index]}`, bytes));
  }

  it('fetches an optional component when a request needs it, once, and keeps it', async () => {
    publishNamed(shards);
    const first = await load();
    assertHonest(first.events);
    assert.equal(downloads(first.events).at(-1)?.total, 50_000);
    assert.deepEqual(shardRequests(), names.slice(0, 2));
    await bringMissing(first.context, first.model, { prompt: 'x', seed: '0' });
    assert.deepEqual(shardRequests(), names.slice(0, 2));
    await bringMissing(first.context, first.model, { prompt: 'x', seed: '0', preview: true });
    await bringMissing(first.context, first.model, { prompt: 'x', seed: '0', preview: true });
    assert.deepEqual(shardRequests(), names);
    // The next visit finds all of it, and completing the model again drops nothing.
    site.asked = [];
    const second = await load();
    await bringMissing(second.context, second.model, { prompt: 'x', seed: '0', preview: true });
    assert.deepEqual(shardRequests(), []);
    const [model] = await withStore((store) => store.list());
    assert.deepEqual([model.bytes, model.complete], [60_000, true]);
  });

  it('goes on without what is optional when the network is gone, and names a missing file', async () => {
    publishNamed(shards);
    const { context, model } = await load();
    site.files.delete(`${FOLDER}${names[2]}`);
    const request = { prompt: 'x', seed: '0', preview: true };
    await assert.rejects(bringMissing(context, model, request), { code: 'download-failed', message: /preview_vae-000-33333333\.bin .*404/ });
    await site.goOffline();
    await bringMissing(context, model, request);
    assertHonest((await load()).events);
    await site.comeBack();
  });

  it('goes on without what is optional while an update is on its way', async () => {
    publishNamed(shards);
    await load();
    publishNamed([shards[0], randomBytes(25_000), shards[2]]);
    for (const name of names.slice(1)) site.files.delete(FOLDER + name);
    const { context, model, foundAt, updateNote } = await load();
    assert.match(String(updateNote), /update/);
    await bringMissing({ ...context, foundAt, updateNote }, model, { prompt: 'x', seed: '0', preview: true });
  });

  it('takes over what version 1 stored: new names alone download nothing', async () => {
    publish(shards.slice(0, 2));
    await load();
    publishNamed(shards);
    site.asked = [];
    assertHonest((await load()).events);
    assert.deepEqual(shardRequests(), []);
  });
});

describe('storage that is refused', () => {
  const shards = [randomBytes(50_000), randomBytes(40_000)];

  /** @param {import('../../pkg/src/load.js').Progress[]} events */
  const notices = (events) => events.flatMap((event) => (event.phase === 'notice' ? [event] : []));

  it('loads into memory and says so once when there is no IndexedDB', async () => {
    publish(shards);
    Reflect.deleteProperty(globalThis, 'indexedDB');
    const { events, storageNote } = await load();
    assertHonest(events);
    assert.match(String(storageNote), /refuses to store the model/);
    assert.equal(notices(events).length, 1);
    assert.equal(notices(events)[0].code, 'quota');
  });

  it('loads into memory when opening the database fails', async () => {
    publish(shards);
    globalThis.indexedDB.open = () => { throw new DOMException('The operation is insecure.', 'SecurityError'); };
    const { events, storageNote } = await load();
    assertHonest(events);
    assert.match(String(storageNote), /insecure/);
  });

  it('loads into memory when there is no room', async (context) => {
    publish(shards);
    context.mock.method(Store.prototype, 'saveShard', async () => { throw Object.assign(new Error('no room'), { code: 'quota' }); });
    const { events, storageNote } = await load();
    assertHonest(events);
    assert.equal(storageNote, 'no room');
    assert.equal(notices(events).length, 1);
  });

  it('makes room by dropping the old version first', async (context) => {
    publish(shards);
    await load();
    publish([shards[0], randomBytes(45_000)]);
    const save = Store.prototype.saveShard;
    let refusals = 1;
    context.mock.method(Store.prototype, 'saveShard', /** @this {Store} @param {Parameters<typeof save>} args */ function saveOnce(...args) {
      return refusals-- > 0 ? Promise.reject(new Error('no room')) : save.apply(this, args);
    });
    const { storageNote } = await load();
    assert.equal(storageNote, undefined);
    const [model] = await withStore((store) => store.list());
    assert.deepEqual([model.bytes, model.complete], [95_000, true]);
  });

  it('loads into memory when the second shard is refused', async (context) => {
    publish(shards);
    const put = IDBObjectStore.prototype.put;
    let puts = 0;
    context.mock.method(IDBObjectStore.prototype, 'put', /** @this {IDBObjectStore} @param {Parameters<typeof put>} args */ function putOnce(...args) {
      puts += 1;
      if (puts > 1) throw new DOMException('Failed to write blobs.', 'DataError');
      return put.apply(this, args);
    });
    const { events, storageNote } = await load();
    assertHonest(events);
    assert.match(String(storageNote), /refuses to store the model \(Failed to write blobs\.\)/);
    assert.equal(notices(events).length, 1);
    context.mock.restoreAll();
    const [partly] = await withStore((store) => store.list());
    assert.deepEqual([partly.bytes, partly.complete], [50_000, false]);
  });

  for (const method of /** @type {const} */ (['manifest', 'shard', 'saveShard', 'complete'])) {
    it(`loads into memory when ${method} never answers`, async (context) => {
      publish(shards);
      context.mock.method(Store.prototype, method, () => new Promise(() => {}));
      const { events, storageNote } = await load();
      assertHonest(events);
      assert.match(String(storageNote), /it did not answer/);
      assert.equal(notices(events).length, 1);
    });
  }

  it('loads into memory when the database rejects, or never answers', async (context) => {
    publish(shards);
    context.mock.method(globalThis.indexedDB, 'open', () => {
      const request = new IDBOpenDBRequest();
      Object.defineProperty(request, 'error', { value: new DOMException('Internal error opening backing store.', 'UnknownError') });
      request.addEventListener = (/** @type {string} */ type, /** @type {any} */ listener) => void (type === 'error' && setTimeout(listener));
      return request;
    });
    assert.match(String((await load()).storageNote), /Internal error opening backing store/);
    context.mock.restoreAll();
    context.mock.method(globalThis.indexedDB, 'open', () => new IDBOpenDBRequest());
    const { events, storageNote } = await load();
    assertHonest(events);
    assert.match(String(storageNote), /it did not answer/);
  });
});
