// Starting from a picture, as a person would: with the default model, on the CPU.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { launch } from './support/browser.js';
import { fixturesFolder } from './support/bundles.js';
import { startLab } from './support/lab.js';
import { TINY, bytesOf, draw, openPage } from './support/page.js';

/** @type {import('./support/site.js').Site} */
let site;
/** @type {import('playwright-core').Browser} */
let browser;
/** @type {import('playwright-core').Page} */
let page;

before(async () => {
  site = await startLab();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.goOffline();
});
beforeEach(async () => {
  page = await openPage(browser);
});
afterEach(() => page.context().close());

/**
 * Mean difference of two square pictures within columns, in bytes, colours weighted by alpha.
 *
 * @param {number[]} one
 * @param {number[]} other
 * @param {(x: number) => boolean} within x from 0 to 1
 */
function difference(one, other, within) {
  const side = Math.sqrt(one.length / 4);
  /** @param {number[]} of @param {number} at */
  const value = (of, at) => (at % 4 === 3 ? of[at] : (of[at] * of[at - (at % 4) + 3]) / 255);
  let [sum, count] = [0, 0];
  for (let at = 0; at < one.length; at += 1) {
    if (!within((Math.floor(at / 4) % side) / side)) continue;
    sum += Math.abs(value(one, at) - value(other, at));
    count += 1;
  }
  return sum / count;
}

describe('starting from a picture', () => {
  it('changes what is painted over and leaves the rest', async (test) => {
    await page.goto(`${site.url}?device=cpu&steps=6&seed=7`);
    await draw(page, 'a red apple');
    const apple = await bytesOf(page, '#canvas');
    await page.getByRole('button', { name: 'Change this' }).click();
    assert.deepEqual(await bytesOf(page, '#start-canvas'), apple);

    const layer = page.locator('#start-mark');
    const box = await layer.boundingBox();
    assert.ok(box);
    await page.getByLabel('Brush').fill('40');
    await page.mouse.move(box.x + box.width * 0.15, box.y + 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.15, box.y + box.height - 2, { steps: 8 });
    await page.mouse.up();
    assert.match(await page.locator('#strength-words').innerText(), /of what is marked$/);
    await page.getByLabel('How much may change').fill('100');
    await page.getByLabel('Seed', { exact: true }).fill('8');
    await draw(page, 'a blue butterfly');
    const changed = await bytesOf(page, '#canvas');
    const [painted, left] = [difference(apple, changed, (x) => x < 0.3), difference(apple, changed, (x) => x > 0.6)];
    test.diagnostic(`painted part ${painted.toFixed(1)}, the rest ${left.toFixed(1)} of 255`);
    assert.ok(painted > 4, `the painted part differs by ${painted}`);
    assert.ok(left < 5, `what was not painted differs by ${left}`);
    assert.ok(painted > 3 * left);
    assert.ok(await page.getByRole('button', { name: 'Copy link' }).isHidden(), 'the link would not draw this picture');

    await page.getByRole('button', { name: 'Undo' }).click();
    assert.match(await page.locator('#strength-words').innerText(), /of the whole picture$/);
    await page.getByRole('button', { name: 'Put the picture away' }).click();
    assert.ok(await layer.isHidden());
  });

  it('takes a file of any shape whole, and says what it did', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    const plain = await bytesOf(page, '#canvas');
    await page.getByText('Start from a picture').click();
    await page.locator('#start-file').setInputFiles(path.join(fixturesFolder(), 'sd15_img2img', 'init.png'));
    await page.getByText(/^Your picture \(\d+ × \d+\) was fitted into 32 × 32\.$/).waitFor();
    const before = await bytesOf(page, '#start-canvas');
    assert.ok(before.some((value) => value > 0));
    await page.getByLabel('How much may change').fill('50');
    await page.getByLabel('Seed', { exact: true }).fill(await page.getByLabel('Seed', { exact: true }).inputValue());
    await draw(page, 'a heart');
    assert.notDeepEqual(await bytesOf(page, '#canvas'), plain, 'the picture made no difference');
  });

  it('says in words that a file is no picture', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByText('Start from a picture').click();
    await page.locator('#start-file').setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('not a picture') });
    await page.getByText('“notes.txt” is no picture that this browser can open. Try a PNG or JPEG file.').waitFor();
    assert.ok(await page.locator('#start-mark').isHidden());
  });
});
