// What `./build.sh site` writes, on the plainest of hosts, in a folder below its root.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { launch } from './support/browser.js';

const BUILD = fileURLToPath(new URL('../../tools/site/build.mjs', import.meta.url));
const TINY = fileURLToPath(new URL('../fixtures/bundle_v1', import.meta.url));
/** All that a host must know. @type {Record<string, string>} */
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.wasm': 'application/wasm' };

/** @type {string} */
let root;
/** @type {string} */
let site;
/** Paths that were asked for and not there. @type {string[]} */
const missed = [];
/** @type {string[]} */
const asked = [];

/** No header but the type, no compression, no fallback. */
const server = createServer((request, response) => {
  const name = decodeURIComponent(new URL(String(request.url), 'http://localhost').pathname).replace(/\/$/, '/index.html');
  asked.push(name);
  const file = path.join(root, name);
  if (!existsSync(file) || !statSync(file).isFile()) {
    missed.push(name);
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream' }).end(readFileSync(file));
});

/** @param {string} out */
const build = (out) => execFileSync(process.execPath, [BUILD, '--out', out, '--quality', '4'], { encoding: 'utf8', stdio: 'pipe' });

before(async () => {
  root = mkdtempSync(path.join(tmpdir(), 'inkbloom-site-'));
  site = path.join(root, 'art', 'stickers');
  // What it made before is replaced.
  mkdirSync(site, { recursive: true });
  for (const name of ['sw.js', 'stale-00000000.js']) writeFileSync(path.join(site, name), '');
  build(site);
  cpSync(TINY, path.join(root, 'tiny'), { recursive: true });
  await new Promise((resolve) => server.listen(0, () => resolve(undefined)));
});

after(() => {
  server.close();
  rmSync(root, { recursive: true, force: true });
});

it('names files after what they hold and compresses what shrinks', () => {
  const files = readdirSync(site, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(path.join(site, name)).isFile());
  assert.ok(!files.includes('stale-00000000.js'));
  const plain = files.filter((name) => !/\.(br|gz)$/.test(name));
  const kept = plain.filter((name) => !/-[0-9a-f]{8}\.[a-z]+$/.test(name) && !name.startsWith('models/'));
  assert.deepEqual(kept.filter((name) => !/LICENSE/.test(name)).sort(), ['index.html', 'inkbloom.webmanifest', 'sw.js']);
  for (const name of plain.filter((name) => /\.(html|js|css|wasm)$/.test(name))) {
    const content = readFileSync(path.join(site, name));
    for (const [ending, open] of /** @type {const} */ ([['br', brotliDecompressSync], ['gz', gunzipSync]])) {
      const packed = path.join(site, `${name}.${ending}`);
      if (existsSync(packed)) assert.ok(open(readFileSync(packed)).equals(content), `${name}.${ending} holds something else`);
      else assert.ok(content.length < 200, `${name}.${ending} is missing`);
    }
  }
  const wasm = plain.find((name) => name.endsWith('.wasm'));
  assert.ok(wasm && statSync(path.join(site, `${wasm}.br`)).size < 0.35 * statSync(path.join(site, wasm)).size);
  // Absolute addresses would tie it to the root of a host.
  for (const name of plain.filter((name) => /\.(html|css|webmanifest)$/.test(name))) {
    assert.doesNotMatch(readFileSync(path.join(site, name), 'utf8'), /(href|src|url)=?["'(]+\//, name);
  }
});

it('refuses a folder that holds something else', () => {
  const strange = path.join(root, 'tiny');
  assert.throws(() => build(strange), /holds something else/);
  assert.ok(existsSync(path.join(strange, 'manifest.json')));
});

it('opens, draws, and opens again without a network', { timeout: 300_000 }, async () => {
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  const url = `http://localhost:${address.port}/art/stickers/?device=cpu&model=${encodeURIComponent('../../tiny/')}`;
  const browser = await launch();
  try {
    const page = await browser.newPage();
    page.on('pageerror', (error) => assert.fail(`the page threw: ${error.message}`));
    const draw = async () => {
      await page.getByLabel('What shall I draw?').fill('a red apple');
      await page.getByRole('button', { name: 'Draw', exact: true }).click();
      await page.locator('#sheet[data-state=done]').waitFor({ timeout: 120_000 });
    };
    await page.goto(url);
    await draw();
    assert.ok(asked.some((name) => /\/pkg\/inkbloom_bg-[0-9a-f]{8}\.wasm$/.test(name)));
    // The service worker keeps the files under the names that they have here.
    await page.waitForFunction(async () => {
      await navigator.serviceWorker.ready;
      const keys = await (await caches.open('inkbloom-page')).keys();
      return ['worker', 'app'].every((stem) => keys.some(({ url }) => new RegExp(`/${stem}-[0-9a-f]{8}\\.js$`).test(url)));
    }, undefined, { timeout: 60_000 });
    // A model may have files that this one lacks.
    assert.deepEqual(missed.filter((name) => !name.startsWith('/tiny/')), []);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await page.reload();
    await draw();
  } finally {
    await browser.close();
  }
});
