import { Inkbloom, InkbloomError } from './pkg/index.js';
import { anIdea } from './ideas.js';
import { ProgressView } from './progress.js';
import { StartPicture } from './start-picture.js';
import { cutOut, paint } from './sticker.js';
import { fileName, withStyle } from './words.js';

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return element;
}

const ui = {
  form: byId('form', HTMLFormElement),
  prompt: byId('prompt', HTMLTextAreaElement),
  draw: byId('draw', HTMLButtonElement),
  idea: byId('idea', HTMLButtonElement),
  styles: byId('styles', HTMLFieldSetElement),
  seed: byId('seed', HTMLInputElement),
  dice: byId('dice', HTMLButtonElement),
  lock: byId('lock', HTMLButtonElement),
  size: byId('size', HTMLSelectElement),
  count: byId('count', HTMLSelectElement),
  steps: byId('steps', HTMLInputElement),
  guidance: byId('guidance', HTMLInputElement),
  negative: byId('negative', HTMLInputElement),
  device: byId('device', HTMLSelectElement),
  stop: byId('stop', HTMLButtonElement),
  trouble: byId('trouble', HTMLDivElement),
  troubleText: byId('trouble-text', HTMLParagraphElement),
  retry: byId('retry', HTMLButtonElement),
  status: byId('status', HTMLParagraphElement),
  sheet: byId('sheet', HTMLDivElement),
  canvas: byId('canvas', HTMLCanvasElement),
  caption: byId('caption', HTMLElement),
  actions: byId('actions', HTMLDivElement),
  download: byId('download', HTMLAnchorElement),
  downloadSticker: byId('download-sticker', HTMLAnchorElement),
  change: byId('change', HTMLButtonElement),
  copy: byId('copy', HTMLButtonElement),
  share: byId('share', HTMLButtonElement),
  link: byId('link', HTMLButtonElement),
  gallery: byId('gallery', HTMLElement),
  stickers: byId('stickers', HTMLUListElement),
  deviceLine: byId('device-line', HTMLParagraphElement),
  storageLine: byId('storage-line', HTMLParagraphElement),
  credits: byId('credits', HTMLDetailsElement),
  creditText: byId('credit-text', HTMLParagraphElement),
};

const progress = new ProgressView(byId('progress', HTMLElement), byId('progress-text', HTMLParagraphElement));
const start = new StartPicture(byId('start', HTMLDetailsElement), say);

/** A link can carry a picture's recipe; `model` and `device` are for trying things out. */
const query = new URLSearchParams(location.search);
const MODEL = query.get('model') ?? './models/sticker/';

/** Advanced settings that belong to a picture's recipe, by their names in the form and in links. */
const SETTINGS = /** @type {const} */ (['size', 'count', 'steps', 'guidance', 'negative']);

/** The loading or loaded engine. @type {{ promise: Promise<Inkbloom>, abort: AbortController, ready: boolean } | undefined} */
let engine;
/** What is being drawn. @type {AbortController | undefined} */
let drawing;
/** What is on the stage. @type {import('./sticker.js').Sticker | undefined} */
let shown;
/** Its files, once they are made. @type {Promise<import('./sticker.js').Files> | undefined} */
let files;
let askedToPersist = false;

// --- Loading ---------------------------------------------------------------------------------------------------

/** @returns {Promise<Inkbloom>} */
function load() {
  if (engine) return engine.promise;
  const abort = new AbortController();
  hideTrouble();
  say('');
  const promise = Inkbloom.load({
    model: MODEL,
    device: /** @type {import('./pkg/index.js').DeviceChoice} */ (ui.device.value),
    signal: abort.signal,
    onProgress: (event) => progress.load(event),
  });
  const current = { promise, abort, ready: false };
  engine = current;
  promise.then(
    (ink) => {
      current.ready = true;
      showModel(ink);
      if (!drawing) {
        progress.hide();
        if (ink.info.repaintsOnly) start.root.open = true;
        say(ink.info.repaintsOnly
          ? 'Ready. This model repaints: choose a picture below, and brush over what shall change.'
          : 'Ready. What shall I draw?');
      }
    },
    () => {
      if (engine === current) engine = undefined;
    },
  );
  return promise;
}

/** Loads without a drawing that waits for it, and says what went wrong. */
function loadAhead() {
  load().catch((error) => {
    if (!drawing) showError(error);
  });
}

/** @param {Inkbloom} ink */
function showModel(ink) {
  const { styles, sizes, defaultSteps, defaultGuidance, attribution, license } = ink.info;
  if (ui.styles.ariaBusy === 'true') showStyles(styles);
  const size = ui.size.value || query.get('size');
  ui.size.replaceChildren(...sizes.map(([width, height]) => new Option(`${width} × ${height}`, `${width}x${height}`)));
  if (size) ui.size.value = size;
  fitStart();
  ui.steps.placeholder = String(defaultSteps);
  ui.guidance.placeholder = String(defaultGuidance);

  const { kind, name, note } = ink.device;
  ui.deviceLine.textContent = [
    kind === 'gpu' ? `Drawn by your graphics card (${name}).` : 'Drawn by your processor.',
    note && `${note[0].toUpperCase()}${note.slice(1)}.`,
    'Nothing you type leaves this device.',
  ].filter(Boolean).join(' ');
  ui.creditText.textContent = [attribution, license && `Licence: ${license}`].filter(Boolean).join('\n');
  ui.credits.hidden = ui.creditText.textContent === '';
  showStorage(ink);
}

/** @param {Inkbloom} ink */
async function showStorage(ink) {
  ui.storageLine.hidden = false;
  if (!ink.stored) {
    ui.storageLine.textContent = ink.storageNote ?? '';
    return;
  }
  const megabytes = (await Inkbloom.models.size()) / 1e6;
  const forget = document.createElement('button');
  forget.type = 'button';
  forget.className = 'link';
  forget.textContent = 'Remove it';
  forget.addEventListener('click', async () => {
    await Inkbloom.models.delete(MODEL);
    ui.storageLine.textContent = 'The model was removed from this browser. It is downloaded again at the next visit.';
  });
  const offline = 'serviceWorker' in navigator ? ', so this page also works offline' : '';
  ui.storageLine.replaceChildren(`The model (${megabytes.toFixed(1)} MB) is kept in this browser${offline}. `, forget);
}

/** @param {string[]} styles */
function showStyles(styles) {
  const wanted = query.get('style') ?? styles[0] ?? '';
  const chips = [...styles, ''].map((style) => {
    const chip = document.createElement('label');
    chip.className = 'chip';
    const radio = document.createElement('input');
    radio.type = 'radio';
    radio.name = 'style';
    radio.value = style;
    radio.checked = style === wanted;
    chip.append(radio, style || 'just my words');
    return chip;
  });
  for (const ghost of ui.styles.querySelectorAll('.ghost')) ghost.remove();
  ui.styles.append(...chips);
  ui.styles.ariaBusy = 'false';
}

function chosenStyle() {
  const chosen = new FormData(ui.form).get('style');
  return typeof chosen === 'string' ? chosen : '';
}

// --- Drawing ---------------------------------------------------------------------------------------------------

async function draw() {
  if (drawing) return;
  hideTrouble();
  const typed = ui.prompt.value;
  if (typed.trim() === '') {
    say('Type a few words first, for example “a red apple”.');
    ui.prompt.focus();
    return;
  }
  const controller = new AbortController();
  drawing = controller;
  setBusy(true);
  say('');
  try {
    const ink = await load();
    const style = chosenStyle();
    const prompt = withStyle(style, typed);
    const begun = start.options();
    const settings = Object.fromEntries(SETTINGS.map((name) => [name, ui[name].value]));
    progress.reading();
    const { images, seed, warnings, timings } = await ink.generate({
      prompt,
      ...chosenOptions(),
      ...begun,
      signal: controller.signal,
      onStep: (step) => {
        progress.step(step);
        if (step.preview) showPreview(step.preview, prompt);
      },
    });
    const stickers = images.map((image, index) => ({
      image, prompt: typed.trim(), style, seed, settings, fromPicture: 'init' in begun,
      ...(images.length > 1 && { note: `${index + 1} of ${images.length}` }),
    }));
    for (const sticker of stickers) addToGallery(sticker);
    show(stickers[0]);
    say([`Drawn in ${(timings.totalMs / 1000).toFixed(1)} s.`, ...warnings].join(' '));
    persistOnce(ink);
  } catch (error) {
    if (shown) show(shown);
    else ui.sheet.dataset.state = 'empty';
    showError(error);
  } finally {
    drawing = undefined;
    setBusy(false);
    progress.hide();
  }
}

function chosenSize() {
  return ui.size.value.split('x').map(Number);
}

/** The picture to start from has the size that is drawn. */
function fitStart() {
  const [width, height] = chosenSize();
  if (width) start.fit(width, height);
}

/** What the form says; what it leaves open stays the model's own default. */
function chosenOptions() {
  const [width, height] = chosenSize();
  /** @param {HTMLInputElement} input */
  const number = (input) => (input.value === '' ? undefined : Number(input.value));
  const seed = ui.seed.value.trim();
  return {
    ...(isLocked() && seed !== '' && { seed }),
    ...(width && { width, height }),
    steps: number(ui.steps),
    guidance: number(ui.guidance),
    count: Number(ui.count.value),
    negativePrompt: ui.negative.value.trim() || undefined,
  };
}

/** @param {boolean} busy */
function setBusy(busy) {
  // Not `disabled`: the focus must stay where it is.
  ui.draw.ariaDisabled = String(busy);
  ui.draw.textContent = busy ? 'Drawing' : 'Draw';
}

/** Stops the drawing; while the model is still on its way, that too. */
function stop() {
  if (engine && !engine.ready) engine.abort.abort();
  drawing?.abort();
}

/** A picture was drawn: now it is plain what keeping the model is good for. @param {Inkbloom} ink */
function persistOnce(ink) {
  if (askedToPersist || !ink.stored) return;
  askedToPersist = true;
  Inkbloom.models.persist().catch(() => {});
}

// --- The stage -------------------------------------------------------------------------------------------------

/**
 * @param {ImageData} preview
 * @param {string} prompt
 */
function showPreview(preview, prompt) {
  paint(ui.canvas, preview);
  ui.sheet.dataset.state = 'drawing';
  ui.canvas.setAttribute('aria-label', `Being drawn: ${prompt}`);
}

/** @param {import('./sticker.js').Sticker} sticker */
function show(sticker) {
  shown = sticker;
  const words = withStyle(sticker.style, sticker.prompt);
  paint(ui.canvas, sticker.image);
  ui.canvas.setAttribute('aria-label', `Sticker: ${words}`);
  ui.sheet.dataset.state = 'done';
  const title = document.createElement('b');
  title.textContent = words;
  const recipe = document.createElement('span');
  recipe.textContent = ` seed ${sticker.seed}${sticker.note ? `, picture ${sticker.note}` : ''}`;
  ui.caption.replaceChildren(title, recipe);
  if (!isLocked()) ui.seed.value = sticker.seed;
  for (const button of ui.stickers.querySelectorAll('button')) {
    button.ariaCurrent = String(button === stickerButtons.get(sticker));
  }
  ui.link.hidden = sticker.fromPicture || !navigator.clipboard;
  offerFiles(sticker);
}

/** @param {import('./sticker.js').Sticker} sticker */
async function offerFiles(sticker) {
  files = cutOut(sticker.image);
  const { png, sticker: cut } = await files;
  if (shown !== sticker) return;
  const name = fileName(sticker.prompt);
  offer(ui.download, png, `${name}.png`);
  offer(ui.downloadSticker, cut, `${name}-sticker.png`);
  ui.actions.hidden = false;
}

/**
 * @param {HTMLAnchorElement} link
 * @param {Blob} file
 * @param {string} name
 */
function offer(link, file, name) {
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(file);
  link.download = name;
}

/** @type {WeakMap<import('./sticker.js').Sticker, HTMLButtonElement>} */
const stickerButtons = new WeakMap();

/** @param {import('./sticker.js').Sticker} sticker */
function addToGallery(sticker) {
  const canvas = document.createElement('canvas');
  paint(canvas, sticker.image);
  const button = document.createElement('button');
  button.type = 'button';
  button.title = withStyle(sticker.style, sticker.prompt);
  button.setAttribute('aria-label', `${button.title}, seed ${sticker.seed}${sticker.note ? `, picture ${sticker.note}` : ''}`);
  button.append(canvas);
  button.addEventListener('click', () => recall(sticker));
  stickerButtons.set(sticker, button);
  const item = document.createElement('li');
  item.append(button);
  ui.stickers.prepend(item);
  ui.gallery.hidden = false;
}

/** Brings a picture back with its words and seed. @param {import('./sticker.js').Sticker} sticker */
function recall(sticker) {
  if (drawing) return;
  ui.prompt.value = sticker.prompt;
  for (const radio of ui.styles.querySelectorAll('input')) radio.checked = radio.value === sticker.style;
  ui.seed.value = sticker.seed;
  for (const name of SETTINGS) ui[name].value = sticker.settings[name];
  show(sticker);
  ui.sheet.scrollIntoView({ block: 'nearest' });
}

ui.change.addEventListener('click', async () => {
  if (!shown) return;
  await start.take(shown.image);
  start.root.scrollIntoView({ block: 'nearest' });
  say('Say what it shall become; paint over it to change only a part.');
});

// --- Passing it on ---------------------------------------------------------------------------------------------

/**
 * @param {string} done
 * @param {() => Promise<void>} action
 */
async function passOn(done, action) {
  try {
    await action();
    say(done);
  } catch (error) {
    // Closing the share sheet is no failure.
    if (error instanceof DOMException && error.name === 'AbortError') return;
    say('This browser did not allow that. “Save PNG” always works.');
  }
}

ui.copy.addEventListener('click', () => passOn('The picture is on the clipboard.', async () => {
  if (!files) return;
  await navigator.clipboard.write([new ClipboardItem({ 'image/png': files.then(({ png }) => png) })]);
}));

ui.share.addEventListener('click', () => passOn('Shared.', async () => {
  if (!shown || !files) return;
  const file = new File([(await files).sticker], `${fileName(shown.prompt)}.png`, { type: 'image/png' });
  await navigator.share({ files: [file], title: withStyle(shown.style, shown.prompt) });
}));

ui.link.addEventListener('click', () => passOn('The link is on the clipboard. Whoever opens it draws the same picture.', async () => {
  if (!shown) return;
  const url = new URL(location.href);
  url.search = '';
  for (const name of ['model', 'device']) {
    const value = query.get(name);
    if (value !== null) url.searchParams.set(name, value);
  }
  url.searchParams.set('prompt', shown.prompt);
  url.searchParams.set('style', shown.style);
  url.searchParams.set('seed', shown.seed);
  for (const name of SETTINGS) if (shown.settings[name]) url.searchParams.set(name, shown.settings[name]);
  await navigator.clipboard.writeText(url.href);
}));

function showWhatCanBePassedOn() {
  ui.copy.hidden = typeof ClipboardItem === 'undefined' || !navigator.clipboard;
  const probe = new File([], 'probe.png', { type: 'image/png' });
  ui.share.hidden = !navigator.canShare?.({ files: [probe] });
}

// --- Words and small things ------------------------------------------------------------------------------------

/** @param {string} text */
function say(text) {
  ui.status.textContent = text;
}

/** @param {unknown} error */
function showError(error) {
  progress.hide();
  if (error instanceof InkbloomError && error.code === 'aborted') {
    say('Stopped. What was downloaded whole is kept; press Draw to go on.');
    return;
  }
  // The package writes for programmers, who know `names` by their ticks.
  ui.troubleText.textContent = (error instanceof Error ? error.message : String(error)).replace(/`([^`]+)`/g, '“$1”');
  ui.trouble.dataset.code = error instanceof InkbloomError ? error.code : 'unknown';
  ui.trouble.hidden = false;
}

function hideTrouble() {
  ui.trouble.hidden = true;
}

function isLocked() {
  return ui.lock.ariaPressed === 'true';
}

/** @param {boolean} locked */
function setLocked(locked) {
  ui.lock.ariaPressed = String(locked);
  ui.lock.title = locked ? 'Draw with a new seed each time' : 'Keep this seed';
}

// --- Wiring ----------------------------------------------------------------------------------------------------

ui.form.addEventListener('submit', (event) => {
  event.preventDefault();
  draw();
});
ui.prompt.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    draw();
  }
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') stop();
});
ui.stop.addEventListener('click', stop);
ui.retry.addEventListener('click', () => (ui.prompt.value.trim() === '' ? loadAhead() : draw()));
ui.idea.addEventListener('click', () => {
  ui.prompt.value = anIdea(ui.prompt.value);
  ui.prompt.focus();
});
ui.lock.addEventListener('click', () => setLocked(!isLocked()));
ui.seed.addEventListener('input', () => setLocked(ui.seed.value.trim() !== ''));
ui.dice.addEventListener('click', () => {
  ui.seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  setLocked(true);
});
ui.size.addEventListener('change', fitStart);
ui.device.addEventListener('change', () => {
  stop();
  const old = engine;
  engine = undefined;
  old?.promise.then((ink) => ink.dispose(), () => {});
  loadAhead();
});

function begin() {
  showWhatCanBePassedOn();
  ui.prompt.placeholder = anIdea('');
  const device = query.get('device');
  if (device !== null && [...ui.device.options].some(({ value }) => value === device)) ui.device.value = device;
  const seed = query.get('seed');
  if (seed !== null) {
    ui.seed.value = seed;
    setLocked(true);
  }
  for (const name of SETTINGS) ui[name].value = query.get(name) ?? ui[name].value;
  const prompt = query.get('prompt');
  if (prompt !== null) {
    ui.prompt.value = prompt;
    draw();
  // A visitor who asked their browser to save data decides with the button.
  } else if (/** @type {{ connection?: { saveData?: boolean } }} */ (navigator).connection?.saveData !== true) loadAhead();
  // Offline visits need the page as well as the model. Without a service worker everything else still works.
  navigator.serviceWorker?.register('./sw.js').catch(() => {});
}

begin();
