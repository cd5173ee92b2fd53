// How the page starts, and what it says where it cannot: before its program runs, without it, in frames, in older
// browsers, on bad networks, with broken storage.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { get } from 'node:http';
import path from 'node:path';
import { beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { TARGET as IDB, bundleIdb } from '../../tools/page/idb.mjs';
import { PATIENCE, TINY, ask, draw, openPage, usePage } from './support/page.js';

const WWW = fileURLToPath(new URL('../../www/', import.meta.url));

const lab = usePage();
let { site, browser, page } = lab;
beforeEach(() => {
  ({ site, browser, page } = lab);
});

/** Keeps requests whose path ends so from being answered, until the answer is called. @param {string} ending */
function hold(ending) {
  /** @type {(() => void)[]} */
  const held = [];
  site.meddle = (request, response) => {
    if (!String(request.url).endsWith(ending) || held.length > 0) return false;
    const file = path.join(WWW, ending);
    held.push(() => response.writeHead(200, { 'content-type': 'text/javascript' }).end(readFileSync(file)));
    return true;
  };
  return async () => {
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    held[0]();
  };
}

/** Answers 404 for paths that end so. @param {string} ending */
function withhold(ending) {
  site.meddle = (request, response) => {
    if (!String(request.url).endsWith(ending)) return false;
    response.writeHead(404).end();
    return true;
  };
}

describe('before its program runs', () => {
  for (const [how, press] of /** @type {const} */ ([
    ['the button', () => page.getByRole('button', { name: 'Draw', exact: true }).click()],
    ['the key', () => page.getByLabel('What shall I draw?').press('Enter')],
  ])) {
    it(`${how} does no harm, and then what was asked`, async () => {
      const release = hold('/app.js');
      await page.goto(`${site.url}${TINY}`, { waitUntil: 'commit' });
      await page.getByLabel('What shall I draw?').fill('a heart');
      await press();
      await page.getByText('One moment: the page is still starting, then it draws.').waitFor();
      await release();
      await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
      assert.match(await page.locator('#caption').innerText(), /a heart/);
      assert.equal(new URL(page.url()).search, TINY);
    });
  }

  it('says when that takes long', async () => {
    await page.clock.install();
    const release = hold('/app.js');
    await page.goto(`${site.url}${TINY}`, { waitUntil: 'commit' });
    await page.getByLabel('What shall I draw?').waitFor();
    await page.clock.fastForward(11_000);
    await page.getByText('The page is still loading; the connection may be slow.').waitFor();
    await release();
  });
});

describe('without its program', () => {
  for (const file of ['/app.js', '/stage.js', '/pkg/index.js']) {
    it(`says that ${file} is missing a part, and what to do`, async () => {
      withhold(file);
      await page.goto(`${site.url}${TINY}`);
      await page.getByRole('alert').getByText('A part of this page did not load, so it cannot draw.').waitFor();
      await ask(page, 'a heart');
      await page.getByRole('button', { name: 'Draw', exact: true }).click();
      assert.equal(new URL(page.url()).search, TINY, 'the form went somewhere');
      site.meddle = undefined;
      await page.getByRole('button', { name: 'Load the page again' }).click();
      await draw(page, 'a heart');
    });
  }

  it('says what is the matter with a program that this browser cannot read', async () => {
    site.meddle = (request, response) => {
      if (!String(request.url).endsWith('/app.js')) return false;
      response.writeHead(200, { 'content-type': 'text/javascript' }).end('let is = not a module');
      return true;
    };
    page.removeAllListeners('pageerror');
    await page.goto(`${site.url}${TINY}`);
    await page.getByRole('alert').getByText(/This page did not start \(.*SyntaxError.*\)\. Use a current version/).waitFor();
  });

  it('works without the script that looks after its start', async () => {
    withhold('/early.js');
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    assert.ok(await page.getByText('Drawing needs JavaScript').isHidden());
  });

  it('says that it needs JavaScript', async () => {
    const plain = await openPage(browser, { javaScriptEnabled: false });
    await plain.goto(site.url);
    await plain.getByText('Drawing needs JavaScript, and none runs here').waitFor();
    await plain.getByRole('button', { name: 'Draw', exact: true }).click({ force: true });
    assert.equal(plain.url(), site.url);
    await plain.context().close();
  });

  it('says that it cannot be opened as a file', async () => {
    page.removeAllListeners('pageerror');
    await page.goto(new URL('../../www/index.html', import.meta.url).href);
    await page.getByRole('alert').getByText('Opened as a file, this page cannot draw').waitFor();
  });
});

describe('in a sandboxed frame', () => {
  // Without the header its modules do not load at all; with it they do, and find no storage and no workers.
  for (const shared of [false, true]) {
    it(`says that it has to be opened in a tab (${shared ? 'modules load' : 'modules are refused'})`, async () => {
      site.files.set('/frame.html', '<!doctype html><iframe sandbox="allow-scripts" src="/" width="390" height="800"></iframe>');
      site.meddle = (request, response) => {
        if (shared) response.setHeader('access-control-allow-origin', '*');
        if (request.url !== '/frame.html') return false;
        response.writeHead(200, { 'content-type': 'text/html' }).end(site.files.get('/frame.html'));
        return true;
      };
      /** @type {string[]} */
      const thrown = [];
      page.removeAllListeners('pageerror');
      page.on('pageerror', (error) => thrown.push(error.message));
      await page.goto(`${site.url}frame.html`);
      const frame = page.frameLocator('iframe');
      await frame.getByRole('alert').getByText(`Open it in a tab of its own: ${site.url}`).waitFor();
      await frame.getByLabel('What shall I draw?').fill('a heart');
      await frame.getByLabel('What shall I draw?').press('Enter');
      await frame.getByRole('button', { name: 'Draw', exact: true }).click();
      await page.waitForTimeout(300);
      assert.ok(await frame.getByRole('alert').isVisible());
      assert.ok(await frame.locator('#progress').isHidden());
      assert.deepEqual(thrown, []);
    });
  }
});

describe('in a browser of the years before', () => {
  it('draws without what came late: AbortSignal.any, ARIA reflection, canvases in workers, and more', async () => {
    await page.addInitScript(() => {
      /** @type {[any, string[]][]} */
      const late = [
        [AbortSignal, ['any', 'timeout']],
        [Element.prototype, Object.keys(Element.prototype).filter((name) => name.startsWith('aria')).concat('role', 'checkVisibility', 'moveBefore')],
        [PointerEvent.prototype, ['getCoalescedEvents']],
        [Promise, ['withResolvers', 'try']],
        [Array.prototype, ['findLast', 'findLastIndex', 'toSorted', 'toReversed', 'toSpliced', 'with']],
        [Array, ['fromAsync']],
        [Object, ['groupBy']],
        [Map, ['groupBy']],
        [URL, ['canParse', 'parse']],
        [Set.prototype, ['union', 'intersection', 'difference', 'isSubsetOf']],
        [String.prototype, ['isWellFormed', 'toWellFormed']],
        [globalThis, ['OffscreenCanvas', 'Iterator', 'visualViewport', 'scheduler', 'ClipboardItem', 'structuredClone']],
        [Intl, ['Segmenter']],
        [Crypto.prototype, ['randomUUID']],
      ];
      for (const [owner, names] of late) for (const name of names) delete owner[name];
    });
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    assert.ok(await page.locator('#styles label').count() >= 2, 'no style chips');
    assert.equal(await page.locator('#styles').getAttribute('aria-busy'), 'false');
    await page.getByRole('button', { name: 'Keep this seed' }).click();
    assert.equal(await page.getByRole('button', { name: 'Keep this seed' }).getAttribute('aria-pressed'), 'true');
    const saved = page.waitForEvent('download');
    await page.getByRole('link', { name: 'Save sticker' }).click();
    assert.equal(readFileSync(await (await saved).path()).toString('latin1', 1, 4), 'PNG');
  });

  it('shows what is chosen by selectors that it has', () => {
    const css = readFileSync(path.join(WWW, 'style.css'), 'utf8');
    assert.doesNotMatch(css, /:has\(/, ':has is unknown to Firefox before 121');
    assert.doesNotMatch(css, /border[^;]*color-mix/, 'a border that is not understood is not drawn');
  });
});

describe('on a bad network', () => {
  /** A visit that leaves page and model in the browser. */
  async function visit() {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    // The last of what the service worker keeps.
    await page.waitForFunction(async () => (await (await caches.open('inkbloom-page')).keys()).some(({ url }) => url.endsWith('/emoji-names.js')));
  }

  it('opens from what it keeps when the server accepts and never answers', async (test) => {
    await visit();
    site.meddle = () => true;
    const began = performance.now();
    await page.reload();
    await page.locator('html[data-page=ready]').waitFor();
    const seconds = (performance.now() - began) / 1000;
    test.diagnostic(`${seconds.toFixed(1)} s`);
    // Three seconds of patience, and a machine that may be busy; without it the wait has no end.
    assert.ok(seconds < 20, `the page took ${seconds} s`);
    await draw(page, 'a heart');
  });

  it('opens from what it keeps when answers break off after the first bytes', async () => {
    await visit();
    site.meddle = (request, response) => {
      if (!/\.js$|\/(\?.*)?$/.test(String(request.url))) return false;
      response.writeHead(200, { 'content-type': String(request.url).endsWith('.js') ? 'text/javascript' : 'text/html', 'content-length': 5000 });
      response.write(' ');
      return true;
    };
    await page.reload();
    await draw(page, 'a heart');
  });

  it('opens from what it keeps when the server is in trouble', async () => {
    await visit();
    site.meddle = (_, response) => {
      response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad gateway</h1>');
      return true;
    };
    await page.reload();
    await draw(page, 'a heart');
  });

  it('takes no web page for a part of itself', async () => {
    await visit();
    site.meddle = (request, response) => {
      if (!String(request.url).endsWith('.js')) return false;
      response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome to our hotel</h1>');
      return true;
    };
    await page.reload();
    await draw(page, 'a heart');
    site.meddle = undefined;
    await page.reload();
    await draw(page, 'a heart');
  });
});

describe('on the first visit', () => {
  it('fetches the engine once, also for later visits without a network', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    await page.waitForFunction(async () => (await (await caches.open('inkbloom-page')).keys()).some(({ url }) => url.endsWith('.wasm')));
    await page.waitForTimeout(500);
    assert.equal(site.countOf('/inkbloom_bg.wasm'), 1);
    assert.equal(site.countOf('/worker.js'), 1);
  });

  it('starts though nothing can keep the page', async () => {
    withhold('/sw.js');
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
  });

  it('starts though the service worker never comes', async () => {
    site.meddle = (request) => String(request.url).endsWith('/sw.js');
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
  });

  it('gets text and engine compressed from its own server, weights as they are', async () => {
    /** @param {string} file @param {string} accept */
    const ask = (file, accept) => new Promise((resolve, reject) => {
      get(`${site.url}${file}`, { headers: { 'accept-encoding': accept } }, (response) => {
        let size = 0;
        response.on('data', (bytes) => { size += bytes.length; }).on('end', () => resolve({ encoding: response.headers['content-encoding'], size, headers: response.headers }));
      }).on('error', reject);
    });
    const raw = await ask('pkg/inkbloom_bg.wasm', 'identity');
    const brotli = await ask('pkg/inkbloom_bg.wasm', 'gzip, deflate, br');
    assert.equal(raw.encoding, undefined);
    assert.equal(brotli.encoding, 'br');
    assert.ok(brotli.size < 0.5 * raw.size, `${brotli.size} of ${raw.size} bytes`);
    assert.equal((await ask('pkg/inkbloom_bg.wasm', 'gzip')).encoding, 'gzip');
    assert.equal((await ask('app.js', 'br')).encoding, 'br');
    assert.match(brotli.headers['content-security-policy'], /default-src 'none'/);
    const { shards } = JSON.parse(readFileSync(new URL('../../www/models/sticker/manifest.json', import.meta.url), 'utf8'));
    const shard = await ask(`models/sticker/${shards[0].file}`, 'br');
    assert.equal(shard.encoding, undefined);
    assert.equal(Number(shard.headers['content-length']), shard.size);
  });
});

describe('with storage that breaks', () => {
  /** @type {[string, () => void][]} */
  const ways = [
    ['is not there', () => { Object.defineProperty(globalThis, 'indexedDB', { value: undefined }); }],
    ['throws when it is mentioned', () => { Object.defineProperty(globalThis, 'indexedDB', { get() { throw new DOMException('The operation is insecure.', 'SecurityError'); } }); }],
    ['never answers', () => { IDBFactory.prototype.open = () => /** @type {any} */ (new EventTarget()); }],
    ['refuses what is put', () => { IDBObjectStore.prototype.add = () => { throw new DOMException('Full.', 'QuotaExceededError'); }; }],
  ];
  for (const [what, breakIt] of ways) {
    it(`draws, and says that pictures are not kept, where it ${what}`, async () => {
      await page.addInitScript(breakIt);
      await page.goto(`${site.url}${TINY}`);
      await draw(page, 'a heart');
      await page.getByText(/^This browser does not keep new pictures \(.+\): they are gone when the page is closed/).waitFor(PATIENCE);
    });
  }
});

describe('what the page is made of', () => {
  it('is all known to the service worker', () => {
    const listed = readFileSync(path.join(WWW, 'sw.js'), 'utf8');
    const files = readdirSync(WWW, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.parentPath.includes('models'))
      .map((entry) => path.relative(WWW, path.join(entry.parentPath, entry.name)).replaceAll(path.sep, '/'))
      .filter((file) => !['index.html', 'serve.mjs', 'sw.js'].includes(file));
    assert.ok(files.length > 10);
    for (const file of files) assert.ok(listed.includes(`'./${file}'`), `sw.js does not keep ${file}`);
  });

  it('has the library idb as it is installed', async () => {
    assert.equal(readFileSync(IDB, 'utf8'), await bundleIdb(), 'run `node tools/page/idb.mjs`');
  });
});
