// What is in sight, and what what is in sight belongs to.
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { PATIENCE, TINY, ask, bytesOf, draw, openPage, setAdvanced, shareInView, startDrawing, usePage } from './support/page.js';

for (const height of [844, 508]) {
  describe(`on a phone of 390 x ${height}`, () => {
    const lab = usePage({ viewport: { width: 390, height }, hasTouch: true, isMobile: true });
    let { site, page } = lab;
    beforeEach(() => {
      ({ site, page } = lab);
    });

    /** @param {string} selector */
    const assertSeen = async (selector) => {
      const share = await shareInView(page, selector);
      assert.ok(share > 0.98, `${(100 * share).toFixed(0)} % of ${selector} is in sight`);
    };

    it('shows all of the picture and of the progress after Enter, also of the second one, and the picture when it is done', async () => {
      await page.goto(`${site.url}${TINY}`);
      for (const prompt of ['a heart', 'a red apple']) {
        await startDrawing(page, prompt);
        await assertSeen('#sheet');
        await assertSeen('#progress');
        assert.equal(await page.evaluate(() => document.activeElement?.id), '', 'the keyboard is still up');
        await page.getByRole('button', { name: 'Stop' }).click();
        await page.getByText(/^Stopped\./).waitFor();
        await setAdvanced(page, { steps: 2 });
        await draw(page, prompt);
        await assertSeen('#sheet');
      }
    });

    it('shows what it says beside the button', async () => {
      await page.goto(`${site.url}${TINY}`);
      await page.getByText('Ready.').waitFor(PATIENCE);
      await page.locator('footer').scrollIntoViewIfNeeded();
      await page.getByRole('button', { name: 'Draw', exact: true }).dispatchEvent('click');
      await page.getByText('Type a few words first').waitFor();
      await assertSeen('#status');
      await assertSeen('#draw');
      await setAdvanced(page, { steps: 0 });
      await page.getByLabel('Steps').press('Enter');
      await page.getByText('Type a few words first').waitFor();
      await assertSeen('#status');
      await page.getByLabel('What shall I draw?').fill('a heart');
      await page.getByLabel('Steps').press('Enter');
      await page.getByRole('alert').waitFor(PATIENCE);
      await assertSeen('#trouble');
      await assertSeen('#draw');
    });

    it('says what became of a link where its button is', async () => {
      await page.goto(`${site.url}${TINY}`);
      await draw(page, 'a heart');
      await page.getByRole('button', { name: 'Copy link' }).click();
      await page.getByText('The link is on the clipboard.').waitFor();
      await assertSeen('#stage-status');
    });

    it('shows all of the picture when one of the sheet is picked', async () => {
      await page.goto(`${site.url}${TINY}`);
      await draw(page, 'a heart');
      await page.locator('#stickers .pick').click();
      await assertSeen('#sheet');
    });

    it('is no wider than the phone', async () => {
      await page.goto(`${site.url}${TINY}`);
      await setAdvanced(page, { count: 4 });
      await draw(page, `a ${'very '.repeat(30)}long-${'word'.repeat(30)}`);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
    });
  });
}

describe('on a desk', () => {
  const lab = usePage({ viewport: { width: 1200, height: 700 } });
  let { site, browser, page } = lab;
  beforeEach(() => {
    ({ site, browser, page } = lab);
  });

  it('shows what is wrong with the chosen device', async () => {
    await page.goto(`${site.url}?model=/bundles/sticker_tiny/&device=cpu`);
    await page.getByText('Ready.').waitFor(PATIENCE);
    await page.getByText('Advanced').click();
    const device = page.getByLabel('Draw with');
    await device.scrollIntoViewIfNeeded();
    site.meddle = (request, response) => {
      if (!String(request.url).endsWith('/worker.js')) return false;
      response.writeHead(404).end();
      return true;
    };
    await page.evaluate(() => navigator.serviceWorker.getRegistrations().then((all) => Promise.all(all.map((one) => one.unregister()))));
    await page.evaluate(() => caches.delete('inkbloom-page'));
    await device.selectOption('gpu');
    await page.getByRole('alert').waitFor(PATIENCE);
    assert.ok(await shareInView(page, '#trouble') > 0.98);
    assert.ok(await shareInView(page, '#draw') > 0.98);
  });

  it('shows all pictures of a drawing, and a link copied from the third opens the third', async () => {
    await page.goto(`${site.url}${TINY}`);
    await setAdvanced(page, { count: 4, steps: 2 });
    await draw(page, 'a heart');
    assert.equal(await page.locator('#stickers li').count(), 4);
    const small = page.getByRole('group', { name: 'All pictures of this drawing' }).getByRole('button');
    assert.equal(await small.count(), 4);
    const pictures = [];
    for (let index = 0; index < 4; index += 1) pictures.push((await bytesOf(page, `#set button:nth-child(${index + 1}) canvas`)).join());
    assert.equal(new Set(pictures).size, 4, 'the pictures are not all different');
    assert.equal((await bytesOf(page, '#canvas')).join(), pictures[0]);
    await small.nth(2).click();
    assert.equal((await bytesOf(page, '#canvas')).join(), pictures[2]);
    assert.match(await page.locator('#caption').innerText(), /picture 3 of 4$/);
    assert.equal(await small.nth(2).getAttribute('aria-pressed'), 'true');
    await page.getByRole('button', { name: 'Copy link' }).click();
    await page.getByText('The link is on the clipboard.').waitFor();
    const link = await page.evaluate(() => navigator.clipboard.readText());

    const other = await openPage(browser);
    await other.goto(link);
    await other.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.match(await other.locator('#caption').innerText(), /picture 3 of 4$/);
    assert.equal((await bytesOf(other, '#canvas')).join(), pictures[2]);
    await other.context().close();
  });

  it('offers nothing of the picture before while another is drawn, and has it back when that is stopped', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    const caption = await page.locator('#caption').innerText();
    const heart = await bytesOf(page, '#canvas');
    await page.getByRole('link', { name: 'Save sticker' }).waitFor();
    await startDrawing(page, 'a red apple');
    assert.match(await page.locator('#caption').innerText(), /a red apple is being drawn$/);
    assert.ok(await page.getByRole('link', { name: 'Save sticker' }).isHidden());
    assert.ok(await page.getByRole('button', { name: 'Copy link' }).isHidden());
    await page.keyboard.press('Escape');
    await page.getByText('Stopped.', { exact: true }).waitFor();
    assert.equal(await page.locator('#caption').innerText(), caption);
    assert.deepEqual(await bytesOf(page, '#canvas'), heart);
    const saved = page.waitForEvent('download');
    await page.getByRole('link', { name: 'Save PNG' }).click();
    assert.match((await saved).suggestedFilename(), /a-heart\.png$/);
  });

  it('Esc never stops the download of the model, the button does', async () => {
    // A server that is slow to send the weights, until it is not.
    /** @type {import('node:http').IncomingMessage[]} */
    const waiting = [];
    let slow = true;
    site.meddle = (request) => {
      if (!slow || !/sticker_tiny\/.*\.bin$/.test(String(request.url))) return false;
      waiting.push(request);
      return true;
    };
    const download = async () => {
      while (waiting.length === 0) await page.waitForTimeout(50);
    };
    await page.goto(`${site.url}${TINY}`);
    await download();
    for (const field of ['What shall I draw?', 'Seed']) await page.getByLabel(field, { exact: true }).press('Escape');
    assert.ok(await page.locator('#progress').isVisible());
    await ask(page, 'a heart');
    await page.keyboard.press('Escape');
    await page.getByText('Stopped. The model is still on its way, for the next drawing.').waitFor();
    assert.ok(await page.locator('#progress').isVisible());
    slow = false;
    for (const { socket } of waiting) socket.destroy();
    await page.getByText('Ready.').waitFor(PATIENCE);
    assert.equal(await page.locator('#stickers li').count(), 0);

    slow = true;
    waiting.length = 0;
    await page.evaluate(() => new Promise((resolve) => { indexedDB.deleteDatabase('inkbloom').onsuccess = resolve; }));
    await page.reload();
    await download();
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stopped. What was downloaded whole is kept; press Draw to go on.').waitFor();
    slow = false;
    await draw(page, 'a heart');
  });

  it('offers the styles that the manifest names, best first, and draws with others that a link has', async () => {
    await page.goto(`${site.url}${TINY}#prompt=a+heart&style=hand+drawn+sketch&seed=3`);
    await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
    assert.match(await page.locator('#caption').innerText(), /^hand drawn sketch of a heart seed 3$/);
    assert.ok(await page.getByRole('radio', { name: 'hand drawn sketch' }).isChecked());
    const manifest = await (await fetch(`${site.url}bundles/sticker_tiny/manifest.json`)).json();
    const chips = await page.locator('#styles label').allInnerTexts();
    assert.deepEqual(chips.slice(0, -1), [...(manifest.model_index.styles ?? []), 'just my words']);

    const served = await (await fetch(`${site.url}models/sticker/manifest.json`)).json();
    const { styles } = served.model_index;
    assert.ok(styles.length >= 5);
    for (const poor of [/sketch/, /thin/, /outline icon/]) assert.ok(!styles.some((/** @type {string} */ style) => poor.test(style)), `${poor} is offered`);
  });
});
