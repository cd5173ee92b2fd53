// Installs the packed package into every example, as a stranger would, and draws with it in a real browser: with the
// bundler's dev server and with what it builds.
//   INKBLOOM_TEST_BUNDLES=DIR node examples/try.mjs [NAME...]
// It downloads some hundred megabytes of bundlers and leaves them in the system's temporary folder until it ends.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { launch } from '../tests/web/support/browser.js';
import { bundlesFolder } from '../tests/web/support/bundles.js';
import { createSite } from '../www/serve.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const run = promisify(execFile);

/**
 * How an example is run; PORT stands for a free port. What is built is served by `serve`, or as files from `files`.
 *
 * @typedef {object} Example
 * @property {string} folder
 * @property {Record<string, string>} [versions] other versions than those that the example asks for
 * @property {string[]} dev
 * @property {string[]} build
 * @property {string[]} [serve]
 * @property {string} [files]
 * @property {boolean} [inline] whether what is built has a script in its HTML, which a strict policy forbids
 */

/** @param {string} folder @param {Record<string, string>} [versions] @returns {Example} */
const vite = (folder, versions) => ({
  folder,
  versions,
  dev: ['vite', '--port', 'PORT', '--strictPort'],
  build: ['vite', 'build'],
  serve: ['vite', 'preview', '--port', 'PORT', '--strictPort'],
});

/** @type {Record<string, Example>} */
const EXAMPLES = {
  'vite 5': vite('vite', { vite: '5' }),
  'vite 6': vite('vite', { vite: '6' }),
  'vite 7': vite('vite', { vite: '7' }),
  'vite 8': vite('vite'),
  react: vite('react'),
  parcel: { folder: 'parcel', dev: ['parcel', '--port', 'PORT'], build: ['parcel', 'build'], files: 'dist', inline: true },
  webpack: { folder: 'webpack', dev: ['webpack', 'serve', '--mode', 'development', '--port', 'PORT'], build: ['webpack', '--mode', 'production'], files: 'dist' },
  next: { folder: 'next', dev: ['next', 'dev', '--port', 'PORT'], build: ['next', 'build'], serve: ['next', 'start', '--port', 'PORT'] },
};

async function freePort() {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  server.close();
  await once(server, 'close');
  return port;
}

/** @param {import('node:http').Server} server */
async function listen(server) {
  server.listen(0);
  await once(server, 'listening');
  return `http://localhost:${/** @type {import('node:net').AddressInfo} */ (server.address()).port}/`;
}

/**
 * Runs a server as long as the work takes.
 *
 * @template T
 * @param {string} cwd
 * @param {string[]} command
 * @param {(url: string) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function serving(cwd, command, work) {
  const port = await freePort();
  const [program, ...args] = command.map((word) => (word === 'PORT' ? String(port) : word));
  // A group of its own, because bundlers start helpers.
  const server = spawn(path.join(cwd, 'node_modules', '.bin', program), args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CI: '1', NO_COLOR: '1' } });
  let said = '';
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (data) => (said += data));
  const url = `http://localhost:${port}/`;
  try {
    const patience = Date.now() + 90_000;
    while (!(await fetch(url).then(({ ok }) => ok, () => false))) {
      assert.ok(server.exitCode === null && Date.now() < patience, `${command.join(' ')} serves nothing:\n${said}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return await work(url);
  } finally {
    if (server.exitCode === null) {
      process.kill(-Number(server.pid));
      await once(server, 'exit');
    }
  }
}

/**
 * Draws once and returns the picture's hash.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {string} url
 * @param {boolean} [bypassCSP]
 */
async function draw(browser, url, bypassCSP) {
  const page = await browser.newPage({ bypassCSP });
  /** @type {string[]} */
  const thrown = [];
  page.on('pageerror', (error) => thrown.push(error.message));
  try {
    await page.goto(url);
    const status = page.locator('#status');
    await page.waitForFunction(() => /^Drawn$|[.)]$/.test(document.getElementById('status')?.textContent ?? ''), undefined, { timeout: 120_000 });
    assert.equal(await status.textContent(), 'Drawn');
    // Next.js has an element beside its canvas, which shares the engine.
    if (await page.locator('ink-bloom').count() > 0) {
      await page.waitForFunction(() => document.querySelector('ink-bloom')?.shadowRoot?.querySelector('canvas.drawn'), undefined, { timeout: 120_000 });
    }
    assert.equal(page.workers().length, 1, 'there is more than one engine');
    assert.deepEqual(thrown, [], 'the page threw');
    return await page.evaluate(() => {
      const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById('canvas'));
      return canvas.toDataURL();
    });
  } finally {
    await page.close();
  }
}

/** The package where there is no browser. @param {string} cwd */
async function tryNode(cwd) {
  writeFileSync(path.join(cwd, 'package.json'), '{"type":"module"}');
  await install(cwd);
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', `
    import { Inkbloom } from 'inkbloom';
    import { InkBloomElement } from 'inkbloom/element';
    const code = await Inkbloom.load({ model: '/models/sticker/' }).catch((error) => error.code);
    console.log(typeof InkBloomElement, code);
  `], { cwd });
  assert.equal(stdout.trim(), 'function unsupported');
}

/** @param {string} cwd */
async function install(cwd) {
  await run('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', tarball], { cwd, maxBuffer: 1 << 26 });
}

const { positionals } = parseArgs({ allowPositionals: true });
const names = positionals.length > 0 ? positionals : ['node', ...Object.keys(EXAMPLES)];
for (const name of names) assert.ok(name === 'node' || name in EXAMPLES, `There is no example "${name}": there are node, ${Object.keys(EXAMPLES).join(', ')}.`);

const work = mkdtempSync(path.join(tmpdir(), 'inkbloom-examples-'));
const { stdout: packed } = await run('npm', ['pack', '--json', '--pack-destination', work], { cwd: path.join(here, '..', 'pkg') });
const tarball = path.join(work, JSON.parse(packed)[0].filename);
const models = createSite({
  mounts: { '/': bundlesFolder() },
  intercept: (_, response) => {
    response.setHeader('access-control-allow-origin', '*');
    return false;
  },
});
const model = `?model=${await listen(models)}sticker_tiny/`;
const browser = await launch({ gpu: false });
/** All of them draw the same. @type {Set<string>} */
const pictures = new Set();
let failures = 0;

/** @param {string} what @param {() => Promise<string | void>} action */
async function attempt(what, action) {
  const began = Date.now();
  try {
    const picture = await action();
    if (picture) pictures.add(picture);
    console.log(`ok    ${what} (${((Date.now() - began) / 1000).toFixed(0)} s)`);
  } catch (error) {
    failures += 1;
    console.log(`FAILS ${what}: ${error instanceof Error ? error.message : error}`);
  }
}

try {
  for (const name of names) {
    const cwd = mkdtempSync(path.join(work, 'app-'));
    if (name === 'node') {
      await attempt('node: import and a refused load', () => tryNode(cwd));
      continue;
    }
    const { folder, versions, dev, build, serve, files, inline } = EXAMPLES[name];
    cpSync(path.join(here, folder), cwd, { recursive: true });
    const manifest = JSON.parse(readFileSync(path.join(cwd, 'package.json'), 'utf8'));
    Object.assign(manifest.devDependencies ?? {}, versions);
    writeFileSync(path.join(cwd, 'package.json'), JSON.stringify(manifest));
    await attempt(`${name}: install`, () => install(cwd));
    /** @param {string} url */
    const open = (url) => draw(browser, url + model);
    await attempt(`${name}: ${dev[0]} dev server`, () => serving(cwd, dev, open));
    await attempt(`${name}: build`, async () => {
      await run(path.join(cwd, 'node_modules', '.bin', build[0]), build.slice(1), { cwd, maxBuffer: 1 << 26 });
      if (serve) return serving(cwd, serve, open);
      // Under this server's strict policy.
      const server = createSite({ mounts: { '/': path.join(cwd, String(files)), '/models/': bundlesFolder() } });
      try {
        return await draw(browser, `${await listen(server)}?model=/models/sticker_tiny/`, inline);
      } finally {
        server.close();
      }
    });
  }
  assert.ok(pictures.size <= 1, 'the examples drew different pictures');
} finally {
  await browser.close();
  models.close();
  rmSync(work, { recursive: true, force: true });
}
process.exitCode = failures > 0 ? 1 : 0;
