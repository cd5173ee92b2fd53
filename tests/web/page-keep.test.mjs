// What the page keeps from visit to visit, and what its addresses carry.
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { LONG, PATIENCE, TINY, bytesOf, draw, openPage, setAdvanced, startDrawing, usePage } from './support/page.js';

const lab = usePage();
let { site, browser, page } = lab;
beforeEach(() => {
  ({ site, browser, page } = lab);
});

/** Names of the pictures of the sheet, newest first. */
const names = () => page.locator('#stickers .pick').evaluateAll((all) => all.map((one) => one.getAttribute('aria-label')));
/** A pause in typing, and time for the disk: leaving the page at once may lose what came last. */
const kept = () => page.waitForTimeout(1500);
const box = () => page.getByLabel('What shall I draw?');

describe('loading the page again', () => {
  it('keeps pictures and words, and draws nothing by itself', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    await page.getByLabel('just my words').check();
    await draw(page, 'a red apple');
    const [before, apple] = [await names(), await bytesOf(page, '#canvas')];
    assert.equal(before.length, 2);
    await box().fill('half a thou');
    await kept();
    await page.reload();
    await page.locator('#stickers li').nth(1).waitFor(PATIENCE);
    assert.deepEqual(await names(), before);
    assert.equal(await box().inputValue(), 'half a thou');
    await page.getByText('Ready.').waitFor(PATIENCE);
    assert.ok(await page.getByLabel('just my words').isChecked());
    assert.equal(await page.locator('#stickers li').count(), 2);
    await page.getByRole('button', { name: before[0] ?? '', exact: true }).click();
    assert.deepEqual(await bytesOf(page, '#canvas'), apple);
    assert.equal(await box().inputValue(), 'a red apple');
  });

  it('does not overwrite what is typed meanwhile', async () => {
    await page.goto(`${site.url}${TINY}`);
    await box().fill('a heart');
    await kept();
    await page.addInitScript(() => document.addEventListener('DOMContentLoaded', () => {
      /** @type {HTMLTextAreaElement} */ (document.getElementById('prompt')).value = 'something else';
    }));
    await page.reload();
    await page.getByText('Ready.').waitFor(PATIENCE);
    assert.equal(await box().inputValue(), 'something else');
  });

  it('forgets what was removed, one or all', async () => {
    await page.goto(`${site.url}${TINY}`);
    for (const prompt of ['one', 'two', 'three', 'four']) await draw(page, prompt);
    await page.getByRole('button', { name: /^Remove .*two, seed/ }).click();
    await kept();
    assert.equal(await page.locator('#stickers li').count(), 3);
    await page.reload();
    await page.locator('#stickers li').nth(2).waitFor(PATIENCE);
    assert.deepEqual((await names()).map((name) => /(one|two|three|four), seed/.exec(name ?? '')?.[1]), ['four', 'three', 'one']);

    await page.getByRole('button', { name: 'Remove all' }).click();
    assert.equal(await page.locator('#stickers li').count(), 3, 'one press was enough');
    await page.getByRole('button', { name: 'Really remove all 3?' }).click();
    assert.equal(await page.locator('#stickers li').count(), 0);
    await kept();
    await page.reload();
    await page.getByText('Ready.').waitFor(PATIENCE);
    assert.equal(await page.locator('#stickers li').count(), 0);
    await draw(page, 'five');
    await page.getByRole('button', { name: 'Remove all' }).click();
    await page.getByRole('button', { name: 'Really remove it?' }).waitFor();
  });

  it('says when there is no room for more', async () => {
    await page.goto(`${site.url}lab.html`);
    const session = await page.context().newCDPSession(page);
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(site.url).origin, quotaSize: 1 });
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    await page.getByText('This browser does not keep new pictures (there is no room left): they are gone when the page is closed.').waitFor();
  });
});

describe('an address', () => {
  it('carries the recipe where no server sees it', async () => {
    await page.goto(`${site.url}${TINY}`);
    await setAdvanced(page, { steps: 3 });
    await draw(page, 'a secret & a heart #1');
    await page.getByRole('button', { name: 'Copy link' }).click();
    await page.getByText('The link is on the clipboard.').waitFor();
    const link = new URL(await page.evaluate(() => navigator.clipboard.readText()));
    assert.equal(link.search, TINY);
    assert.equal(new URLSearchParams(link.hash.slice(1)).get('prompt'), 'a secret & a heart #1');
    const picture = await bytesOf(page, '#canvas');
    site.asked = [];
    const other = await openPage(browser);
    await other.goto(link.href);
    await other.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.deepEqual(await bytesOf(other, '#canvas'), picture);
    assert.ok(site.asked.length > 5);
    assert.ok(!site.asked.some((asked) => /secret|prompt=/.test(asked)), site.asked.join());
    await other.context().close();
  });

  it('of an earlier version draws the same, and is rewritten', async () => {
    await page.goto(`${site.url}${TINY}&prompt=a+heart&style=3d+emoji&seed=7&steps=3&count=1`);
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.match(await page.locator('#caption').innerText(), /^3d emoji of a heart seed 7$/);
    assert.equal(await page.getByLabel('Steps').inputValue(), '3');
    const { searchParams, hash } = new URL(page.url());
    assert.deepEqual([...searchParams.keys()], ['model', 'device']);
    assert.equal(hash, '#prompt=a+heart&style=3d+emoji&seed=7&count=1&steps=3');
    const picture = await bytesOf(page, '#canvas');
    site.asked = [];
    await page.reload();
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.deepEqual(await bytesOf(page, '#canvas'), picture);
    assert.ok(!site.asked.some((asked) => asked.includes('heart')));
  });

  it('that is pasted into an open page is drawn, too', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    await page.evaluate((steps) => { location.hash = `prompt=a+lemon&seed=5&style=&steps=${steps}`; }, LONG);
    await page.getByText(/^Drawing: step/).waitFor(PATIENCE);
    // Also while another is drawn.
    await page.evaluate(() => { location.hash = 'prompt=a+pear&seed=6&style=&steps=2'; });
    await page.locator('#stickers li').nth(1).waitFor(PATIENCE);
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.match(await page.locator('#caption').innerText(), /^a pear seed 6$/);
    assert.equal(await page.locator('#stickers li').count(), 2);
  });

  it('is let go of when something else is drawn', async () => {
    await page.goto(`${site.url}${TINY}#prompt=a+heart&seed=7`);
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    await draw(page, 'a lemon');
    assert.equal(new URL(page.url()).hash, '');
    await kept();
    await page.reload();
    await page.locator('#stickers li').nth(1).waitFor(PATIENCE);
    assert.equal(await box().inputValue(), 'a lemon');
  });

  it('may have numbers that the page does not offer, and none at all', async () => {
    await page.goto(`${site.url}${TINY}#prompt=a+heart&count=3&size=7x7&seed=-1&picture=9&steps=`);
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.equal(await page.locator('#stickers li').count(), 3);
    assert.match(await page.locator('#caption').innerText(), /picture 1 of 3$/);
    await page.goto(`${site.url}lab.html`);
    await page.goto(`${site.url}${TINY}#nonsense&%E0%A4%A`);
    await page.getByText('Ready.').waitFor(PATIENCE);
  });
});

describe('a seed of -1', () => {
  it('is a new one each time', async () => {
    await page.goto(`${site.url}${TINY}`);
    const seeds = [];
    for (const prompt of ['a heart', 'a heart']) {
      await page.getByLabel('Seed', { exact: true }).fill('-1');
      await draw(page, prompt);
      seeds.push(await page.getByLabel('Seed', { exact: true }).inputValue());
    }
    assert.match(seeds[0], /^\d+$/);
    assert.notEqual(seeds[0], seeds[1]);
  });
});

describe('Enter', () => {
  /** @param {string} init */
  const press = (init) => box().evaluate((element, init) => element.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...JSON.parse(init) })), init);

  it('that ends a word of an input method, or is held, draws nothing', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByText('Ready.').waitFor(PATIENCE);
    await box().fill('a heart');
    // Safari tells of it by the key code alone; others by `isComposing`.
    await press('{"keyCode":229}');
    await press('{"isComposing":true}');
    await press('{"repeat":true}');
    await press('{"shiftKey":true}');
    assert.equal(await page.getByRole('button', { name: 'Draw', exact: true }).getAttribute('aria-disabled'), null);
    await press('{"keyCode":13}');
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
  });

  it('nor does an input method’s Esc stop a drawing', async () => {
    await page.goto(`${site.url}${TINY}`);
    await startDrawing(page, 'a heart');
    await box().evaluate((element) => element.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', keyCode: 229, bubbles: true })));
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
  });

  it('draws from the one-line fields as well', async () => {
    await page.goto(`${site.url}${TINY}`);
    await box().fill('a heart');
    await page.getByLabel('Seed', { exact: true }).fill('5');
    await page.getByLabel('Seed', { exact: true }).press('Enter');
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.match(await page.locator('#caption').innerText(), /seed 5$/);
  });
});
