// The page, driven as a person would. The default model is drawn with once, on the CPU; the rest uses a tiny one.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PATIENCE, TINY, draw, setAdvanced, startDrawing, usePage } from './support/page.js';
import { longestTask } from './support/trace.js';

const DEFAULT_MODEL = fileURLToPath(new URL('../../www/models/sticker/manifest.json', import.meta.url));

const lab = usePage();
let { site, browser, page } = lab;
beforeEach(() => {
  ({ site, browser, page } = lab);
});

/** Runs in the page: keeps in `window.said` all that the visible progress line says, some of it too briefly to wait for. */
function noteProgress() {
  /** @type {string[]} */
  const said = [];
  Object.assign(window, { said });
  new MutationObserver(() => {
    const line = document.getElementById('progress-text');
    if (line?.checkVisibility() && line.innerText !== said.at(-1)) said.push(line.innerText);
  }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
}

/** What is on the canvas. */
function pixels() {
  return page.evaluate(async () => {
    const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById('canvas'));
    const { data, width, height } = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d')).getImageData(0, 0, canvas.width, canvas.height);
    const alpha = data.filter((_, index) => index % 4 === 3);
    const colours = new Set();
    for (let index = 0; index < data.length; index += 4) if (data[index + 3] > 200) colours.add(`${data[index] >> 4},${data[index + 1] >> 4},${data[index + 2] >> 4}`);
    return {
      width,
      height,
      clear: alpha.filter((value) => value < 20).length / alpha.length,
      solid: alpha.filter((value) => value > 235).length / alpha.length,
      colours: colours.size,
      hash: new Uint8Array(await crypto.subtle.digest('SHA-256', data)).join(),
    };
  });
}

describe('the page with the default model', () => {
  it('downloads at the first visit, draws, and draws the same again without a network', async (test) => {
    assert.ok(existsSync(DEFAULT_MODEL), 'www/models/sticker/manifest.json is missing: run `./build.sh setup`');
    await page.addInitScript(noteProgress);
    await page.goto(`${site.url}?device=cpu`);
    await page.getByLabel('3d emoji', { exact: true }).check(PATIENCE);
    await page.getByText('Advanced').click();
    await page.getByLabel('Steps').fill('8');
    await page.getByLabel('Seed', { exact: true }).fill('7');
    await draw(page, 'a red apple');
    const said = await page.evaluate(() => /** @type {any} */ (window).said);
    assert.ok(said.some((/** @type {string} */ text) => /^Downloading the model: [\d.]+ of [\d.]+ MB$/.test(text)), said.join('; '));
    const first = await pixels();
    test.diagnostic(`clear ${(100 * first.clear).toFixed(0)} %, solid ${(100 * first.solid).toFixed(0)} %, ${first.colours} colours; ${await page.locator('#status').innerText()}`);
    assert.ok(first.clear > 0.1 && first.clear < 0.95, `${first.clear} of the picture is transparent`);
    assert.ok(first.solid > 0.05, `${first.solid} of the picture is solid`);
    assert.ok(first.colours >= 3, 'the picture has hardly a colour');
    assert.match(await page.locator('#caption').innerText(), /^3d emoji of a red apple seed 7$/);
    assert.match(await page.locator('#device-line').innerText(), /^Drawn by your processor/);
    assert.match(await page.locator('#storage-line').innerText(), /is kept in this browser/);

    const saved = page.waitForEvent('download');
    await page.getByRole('link', { name: 'Save PNG' }).click();
    const download = await saved;
    assert.equal(download.suggestedFilename(), '3d-emoji-of-a-red-apple.png');
    const png = readFileSync(await download.path());
    assert.equal(png.toString('latin1', 1, 4), 'PNG');
    assert.equal(png[25], 6, 'the PNG must have an alpha channel (colour type 6)');

    await page.evaluate(async () => (await navigator.serviceWorker.ready).active);
    await site.goOffline();
    try {
      await page.reload();
      await page.getByLabel('3d emoji', { exact: true }).check(PATIENCE);
      await page.getByText('Advanced').click();
      await page.getByLabel('Steps').fill('8');
      await page.getByLabel('Seed', { exact: true }).fill('7');
      await draw(page, 'a red apple');
      assert.equal((await pixels()).hash, first.hash);
    } finally {
      await site.comeBack();
    }
  });

  it('draws four, the best first, keeps what is picked, and draws one alone from its own seed', async () => {
    await page.goto(`${site.url}?device=cpu`);
    await page.getByLabel('3d emoji', { exact: true }).check(PATIENCE);
    await page.getByText('Advanced').click();
    await page.getByLabel('Steps').fill('2');
    await draw(page, 'a red apple');
    const small = page.locator('#set button');
    const kept = page.locator('#stickers li');
    const seed = page.getByLabel('Seed', { exact: true });
    assert.match(await page.locator('#status').innerText(), /^Drew 4 in [\d.]+ s; the best match comes first\.$/);
    assert.deepEqual([await small.count(), await small.first().getAttribute('aria-pressed'), await kept.count()], [4, 'true', 1]);
    const best = await seed.inputValue();
    await small.nth(2).click();
    assert.equal(await kept.count(), 2);
    assert.notEqual(await seed.inputValue(), best);
    const picked = await pixels();
    await small.first().click();
    await small.nth(2).click();
    assert.equal(await kept.count(), 2, 'it was kept twice');
    await page.getByRole('button', { name: 'Keep this seed' }).click();
    await draw(page, 'a red apple');
    assert.equal(await small.count(), 0);
    assert.equal((await pixels()).hash, picked.hash);
  });

  it('draws one where what chooses among several cannot be fetched', async () => {
    site.meddle = ({ url }, response) => /\/scorer-.*\.bin$/.test(String(url)) && !!response.writeHead(404).end();
    await page.goto(`${site.url}?device=cpu`);
    await page.getByLabel('3d emoji', { exact: true }).check(PATIENCE);
    await page.getByText('Advanced').click();
    await page.getByLabel('Steps').fill('1');
    await draw(page, 'a red apple');
    assert.ok(site.countOf('.bin') > 0 && site.asked.some((path) => path.includes('/scorer-')), 'it was not asked for');
    assert.equal(await page.locator('#set button').count(), 0);
    assert.match(await page.locator('#status').innerText(), /^Drawn in/);
  });
});

describe('the page', () => {
  it('draws a new picture each time, keeps them all, and brings one back', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a red apple');
    const seed = await page.getByLabel('Seed', { exact: true }).inputValue();
    const first = await pixels();
    await draw(page, 'a heart');
    assert.notEqual(await page.getByLabel('Seed', { exact: true }).inputValue(), seed);
    await page.getByRole('button', { name: /^(?!Remove).*a red apple, seed/ }).click();
    assert.equal(await page.getByLabel('What shall I draw?').inputValue(), 'a red apple');
    assert.equal(await page.getByLabel('Seed', { exact: true }).inputValue(), seed);
    assert.equal((await pixels()).hash, first.hash);
  });

  it('keeps a locked seed and draws the same picture with it', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByRole('button', { name: 'Roll a new seed' }).click();
    const seed = await page.getByLabel('Seed', { exact: true }).inputValue();
    await draw(page, 'a heart');
    const first = await pixels();
    await draw(page, 'a heart');
    assert.equal(await page.getByLabel('Seed', { exact: true }).inputValue(), seed);
    assert.equal((await pixels()).hash, first.hash);
  });

  it('copies the picture and a link that draws it again', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByText('Advanced').click();
    await page.getByLabel('Steps').fill('3');
    await page.getByLabel('Leave out').fill('blue');
    await draw(page, 'a heart');
    const first = await pixels();
    await page.getByRole('button', { name: 'Copy picture' }).click();
    await page.getByText('The picture is on the clipboard.').waitFor();
    const types = await page.evaluate(async () => (await navigator.clipboard.read()).flatMap((item) => item.types));
    assert.deepEqual(types, ['image/png']);
    await page.getByRole('button', { name: 'Copy link' }).click();
    await page.getByText('The link is on the clipboard.').waitFor();
    await page.goto(await page.evaluate(() => navigator.clipboard.readText()));
    // The page stays, and with it the first picture until the second is drawn.
    await page.locator('#stickers li').nth(1).waitFor(PATIENCE);
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.equal((await pixels()).hash, first.hash);
  });

  it('stops when told to, by button and by key, and draws again', async () => {
    await page.goto(`${site.url}${TINY}`);
    for (const stop of [() => page.getByRole('button', { name: 'Stop' }).click(), () => page.keyboard.press('Escape')]) {
      await startDrawing(page, 'a heart');
      await stop();
      await page.getByText(/^Stopped\./).waitFor();
      assert.equal(await page.locator('#stickers li').count(), 0);
    }
    await setAdvanced(page, { steps: 2 });
    await draw(page, 'a heart');
  });

  it('says what is wrong and what to do, and goes on', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByRole('button', { name: 'Draw', exact: true }).click();
    await page.getByText('Type a few words first').waitFor();
    await page.getByText('Advanced').click();
    await page.getByLabel('Steps').fill('0');
    await page.getByLabel('What shall I draw?').fill('a heart');
    await page.keyboard.press('Enter');
    await page.getByRole('alert').getByText('“steps” must be a whole number of at least 1, not 0').waitFor(PATIENCE);
    await page.getByLabel('Steps').fill('2');
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.equal(await page.getByRole('alert').isVisible(), false);
  });

  it('says which file is missing', async () => {
    await page.goto(`${site.url}?model=/models/nowhere/`);
    await page.getByRole('alert').getByText(/models\/nowhere\/manifest\.json could not be downloaded: there is no such file/).waitFor();
  });

  it('says when the model cannot be stored', async () => {
    await page.goto(`${site.url}lab.html`);
    const session = await page.context().newCDPSession(page);
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(site.url).origin, quotaSize: 20_000 });
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    await page.getByText('This browser refuses to store the model (there is no room left)').waitFor();
  });

  it('removes the model when asked', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByRole('button', { name: 'Remove it' }).click(PATIENCE);
    await page.getByText('The model was removed from this browser.').waitFor();
  });

  it('works in a folder of a site, also without a network', async () => {
    await page.goto(`${site.url}art/${TINY}`);
    await draw(page, 'a heart');
    await page.evaluate(async () => (await navigator.serviceWorker.ready).active);
    await site.goOffline();
    try {
      await page.reload();
      await draw(page, 'a heart');
    } finally {
      await site.comeBack();
    }
  });

  it('fits a phone and keeps its main thread free from the first look to the picture', async (test) => {
    await page.setViewportSize({ width: 360, height: 740 });
    const longest = await longestTask(browser, page, async () => {
      await page.goto(`${site.url}${TINY}`);
      await draw(page, 'a heart');
      await page.getByRole('link', { name: 'Save sticker' }).waitFor();
      await page.getByText('Advanced').click();
    });
    test.diagnostic(`longest task ${longest.toFixed(0)} ms`);
    assert.ok(longest < 50, `a task of ${longest} ms on the main thread`);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  });
});
