// The shell: it knows the parts of the page and what each tells the others. A part knows only itself.
import { Inkbloom, InkbloomError } from './pkg/index.js';
import { byId, isEscape } from './dom.js';
import { Engine } from './engine.js';
import { Footer } from './footer.js';
import { Gallery } from './gallery.js';
import { Messages } from './messages.js';
import { Moving } from './moving.js';
import { keepPage } from './offline.js';
import { ProgressView } from './progress.js';
import { Prompt } from './prompt.js';
import { Reader } from './reading.js';
import { forgetRecipe, linkTo, takeRecipe } from './recipe.js';
import { Settings } from './settings.js';
import { Stage } from './stage.js';
import { StartPicture } from './start-picture.js';
import { Store } from './store.js';
import { Styles } from './styles.js';
import { putsTogether, withStyle } from './words.js';

/** For trying things out: `?model=` and `?device=`. */
const query = new URLSearchParams(location.search);
const MODEL = query.get('model') ?? './models/sticker/';

const page = document.documentElement.dataset;
const kept = keepPage();
const store = new Store();
const reader = new Reader(MODEL);
const progress = new ProgressView();
const messages = new Messages(() => (prompt.text.trim() === '' ? void engine.load().catch(() => {}) : draw()));
const footer = new Footer(MODEL);
const start = new StartPicture();
const styles = new Styles(saveDraft);
const prompt = new Prompt({ onDraw: drawAnew, onPause: () => { saveDraft(); readPrompt(); } });
const settings = new Settings({ onSize: fitStart, onDevice: changeDevice, onWay: readPrompt });
const stage = new Stage({
  onShow(sticker) {
    if (!settings.locked) settings.seed = sticker.seed;
    gallery.show(sticker);
    moving.show(sticker);
  },
  onChange: (sticker) => start.take(sticker.image),
  linkTo: ({ prompt, style, seed, settings, picture }) => linkTo({ prompt, style, seed, ...settings, picture: picture > 1 ? String(picture) : '' }),
});
const moving = new Moving({
  animate: async (image, motion) => (await engine.load()).animate(image, { motion }),
  draw: drawFrames,
  onPlay: (animation) => stage.play(animation),
  onStill: () => stage.still(),
});
const gallery = new Gallery(store, recall);
const engine = new Engine({ model: MODEL, device: () => settings.device, after: kept.watched, onProgress: (event) => progress.load(event), onReady: showModel, onFailure });

/** What is being drawn. @type {AbortController | undefined} */
let drawing;
/** Settled when nothing is being drawn. @type {Promise<void>} */
let drawn = Promise.resolve();
let askedToPersist = false;

// --- Loading ---------------------------------------------------------------------------------------------------

/** @param {Inkbloom} ink */
function showModel(ink) {
  kept.keep();
  styles.show(ink.info.styles);
  settings.show(ink.info);
  // Which ways there are is known only now.
  readPrompt();
  start.cell = ink.info.cell;
  moving.offer(ink.info);
  fitStart();
  footer.show(ink);
  if (drawing) return;
  progress.hide();
  if (ink.info.repaintsOnly) start.open();
  messages.say(ink.info.repaintsOnly
    ? 'Ready. This model repaints: choose a picture below, and brush over what shall change.'
    : 'Ready. What shall I draw?');
}

/** @param {unknown} error of a load; a drawing that waits for it tells of it itself */
function onFailure(error) {
  if (!drawing) told(error);
}

/** @param {unknown} error */
function told(error) {
  progress.hide();
  if (error instanceof InkbloomError && error.code === 'aborted') messages.answer('Stopped. What was downloaded whole is kept; press Draw to go on.');
  else messages.error(error);
}

function changeDevice() {
  drawing?.abort();
  engine.drop();
  messages.clear();
  engine.load().catch(() => {});
}

// --- Drawing ---------------------------------------------------------------------------------------------------

/** What a person asks for, whatever link they came by. */
function drawAnew() {
  forgetRecipe();
  draw();
}

/** @param {number} [wanted] which picture to show, from 1 */
function draw(wanted = 1) {
  if (!drawing) drawn = drawNow(wanted);
}

/** @param {number} wanted */
async function drawNow(wanted) {
  messages.clear();
  const typed = prompt.text.trim();
  const begun = start.options();
  // Where a picture is drawn on from, it may say all.
  if (typed === '' && !('init' in begun)) {
    messages.answer('Type a few words first, for example “a red apple”.');
    prompt.focus();
    return;
  }
  const controller = new AbortController();
  const { signal } = controller;
  drawing = controller;
  prompt.setBusy(true);
  prompt.rest();
  moving.rest();
  stage.reveal();
  saveDraft();
  readPrompt();
  try {
    const [ink, read] = await orAborted(Promise.all([engine.load(), reader.text(typed)]), signal);
    const recipe = { prompt: typed, style: styles.chosen, settings: settings.recipe };
    const words = withStyle(recipe.style, read);
    progress.reading();
    /** @type {import('./pkg/index.js').GenerateOptions} */
    const options = {
      prompt: words,
      ...settings.options(),
      ...begun,
      // Pieces are put together from words alone.
      ...('init' in begun && { way: undefined, search: undefined }),
      signal,
      onStep(step) {
        progress.step(step);
        if (step.preview) stage.preview({ ...step, preview: step.preview }, words);
      },
    };
    const { images, seed, seeds, scores, warnings, timings } = await ink.generate(options).catch((error) => {
      // What chooses among several may not be here yet, and out of reach: one picture needs nothing more.
      if (!options.candidates || options.search || error.code !== 'download-failed') throw error;
      return ink.generate({ ...options, candidates: undefined, keep: undefined });
    });
    const set = images.map((image, index) => ({
      image, words, ...recipe, fromPicture: 'init' in begun,
      // One that was chosen can be drawn alone, from its own seed; those of beam search come of all of them.
      ...(scores && !recipe.settings.way
        ? { seed: seeds[index], settings: alone(recipe.settings), picture: 1, pictures: 1 }
        : { seed, picture: index + 1, pictures: images.length }),
    }));
    for (const sticker of set.slice(0, options.count)) gallery.add(sticker);
    stage.show(set[wanted - 1] ?? set[0], set);
    const seconds = (timings.totalMs / 1000).toFixed(1);
    messages.say([scores ? `Drew ${images.length} in ${seconds} s; the best match comes first.` : `Drawn in ${seconds} s.`, ...warnings].join(' '));
    persistOnce(ink);
  } catch (error) {
    stage.restore();
    if (!signal.aborted) told(error);
    else messages.answer(engine.loading ? 'Stopped. The model is still on its way, for the next drawing.' : 'Stopped.');
  } finally {
    drawing = undefined;
    prompt.setBusy(false);
    if (!engine.loading) progress.hide();
  }
}

/** The settings that draw a chosen picture again: from its own seed, which is kept. @param {Record<string, string>} settings */
function alone({ candidates, ...settings }) {
  return { ...settings, count: '1' };
}

/**
 * Draws the words of a sticker as an animation, from the noise that the sticker came of.
 *
 * @param {import('./sticker.js').Sticker} sticker
 * @param {AbortSignal} signal
 * @param {(step: import('./pkg/index.js').Step) => void} onStep
 */
async function drawFrames({ image, words, seed, picture, settings: { steps, guidance, negative }, fromPicture }, signal, onStep) {
  const ink = await engine.load();
  const number = (/** @type {string | undefined} */ text) => (text ? Number(text) : undefined);
  try {
    const { animations: [animation] } = await ink.generate({
      prompt: words,
      seed: BigInt.asUintN(64, BigInt(seed) + BigInt(picture - 1)),
      width: image.width,
      height: image.height,
      steps: number(steps),
      guidance: number(guidance),
      negativePrompt: negative || undefined,
      ...(fromPicture && { init: image }),
      frames: ink.info.defaultFrames,
      preview: false,
      signal,
      onStep,
    });
    return animation;
  } finally {
    // What was fetched for it was shown there.
    if (!drawing && !engine.loading) progress.hide();
  }
}

/**
 * @template T
 * @param {Promise<T>} work goes on without us
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
function orAborted(work, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new InkbloomError('aborted', 'Stopped.')), { once: true });
    work.then(resolve, reject);
  });
}

/** Says what the model makes of the prompt. */
async function readPrompt() {
  const { text } = prompt;
  const notes = await reader.notes(text);
  const way = settings.betterWayForPairs;
  if (way && putsTogether(text)) notes.push(`For one thing beside another choose “${way}” under “How to draw”.`);
  if (text === prompt.text) messages.hint(notes);
}

/** The picture to start from has the size that is drawn. */
function fitStart() {
  if (settings.size) start.fit(...settings.size);
}

/** A picture was drawn: now it is plain what keeping the model is good for. @param {Inkbloom} ink */
function persistOnce(ink) {
  if (askedToPersist || !ink.stored) return;
  askedToPersist = true;
  Inkbloom.models.persist().catch(() => {});
}

/** Brings a picture back with its words and seed. @param {import('./sticker.js').Sticker} sticker */
function recall(sticker) {
  if (drawing) return;
  forgetRecipe();
  prompt.text = sticker.prompt;
  styles.chosen = sticker.style;
  settings.recipe = sticker.settings;
  settings.seed = sticker.seed;
  stage.show(sticker);
  stage.reveal();
  saveDraft();
}

function saveDraft() {
  store.saveDraft({ prompt: prompt.text, style: styles.chosen }).catch(() => {});
}

// --- Wiring ----------------------------------------------------------------------------------------------------

document.addEventListener('keydown', (event) => {
  // A key may be meant for something else: it stops a drawing, never a download.
  if (isEscape(event)) drawing?.abort();
});
byId('stop', HTMLButtonElement).addEventListener('click', () => {
  if (engine.loading) engine.stop();
  else drawing?.abort();
});
// A link that is pasted into the open page does not load it again.
addEventListener('hashchange', async () => {
  drawing?.abort();
  await drawn;
  openLink();
});

/** Draws what a link asks for. @returns {boolean} whether there is one */
function openLink() {
  const recipe = takeRecipe();
  if (!recipe) return false;
  settings.recipe = recipe;
  if (recipe.style !== undefined) styles.chosen = recipe.style;
  if (recipe.prompt !== undefined) {
    prompt.text = recipe.prompt;
    draw(Number(recipe.picture ?? 1));
  }
  return recipe.prompt !== undefined;
}

/** What was typed when the page was left. */
async function restoreDraft() {
  if (prompt.text !== '') return;
  const draft = await store.draft().catch(() => undefined);
  if (!draft || prompt.text !== '') return;
  prompt.text = draft.prompt;
  styles.chosen = draft.style;
}

async function begin() {
  page.page = 'ready';
  messages.say('');
  const device = query.get('device');
  if (device !== null) settings.device = /** @type {import('./pkg/index.js').DeviceChoice} */ (device);
  gallery.restore();
  if (openLink()) return;
  // A visitor who asked their browser to save data decides with the button.
  const saveData = /** @type {{ connection?: { saveData?: boolean } }} */ (navigator).connection?.saveData === true;
  if (!saveData) engine.load().catch(() => {});
  await restoreDraft();
  // Draw was pressed before this ran.
  if (page.asked !== undefined) draw();
}

// In a frame or a browser where nothing can be drawn, that was said already.
if (page.page !== 'failed') begin();
