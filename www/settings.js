import { byId } from './dom.js';

/** What other programs call "a new seed each time". */
const ANY_SEED = '-1';

/** Settings that belong to a picture's recipe, by their names in the form and in links. */
const ADVANCED = /** @type {const} */ (['size', 'count', 'candidates', 'way', 'steps', 'guidance', 'negative']);

/** The ways of drawing: what each is called here, and a sentence on it. */
const WAYS = {
  diffusion: ['all at once', 'The whole picture comes out of noise, clearer with each step.'],
  tokens: ['piece by piece', 'A small picture is put together from pieces, then a large one, row by row; it takes longest.'],
  hybrid: ['laid out first', 'A small picture is put together from pieces, and the large one is drawn to it at once; the way for one thing beside another.'],
};

/** The seed and the advanced settings. */
export class Settings {
  #fields = {
    size: byId('size', HTMLSelectElement),
    count: byId('count', HTMLSelectElement),
    candidates: byId('candidates', HTMLSelectElement),
    way: byId('way', HTMLSelectElement),
    steps: byId('steps', HTMLInputElement),
    guidance: byId('guidance', HTMLInputElement),
    negative: byId('negative', HTMLInputElement),
  };
  #seed = byId('seed', HTMLInputElement);
  #lock = byId('lock', HTMLButtonElement);
  #device = byId('device', HTMLSelectElement);
  #wayNote = byId('way-note', HTMLParagraphElement);
  /** How many bytes each way has yet to fetch. @type {Record<string, number>} */
  #downloads = {};
  /** A size that was asked for before the model told its own. */
  #wantedSize = '';
  #wantedWay = '';
  /** The way that a model draws in where nothing is chosen. */
  #ownWay = 'diffusion';

  /** @param {{ onSize: () => void, onDevice: () => void, onWay: () => void }} events */
  constructor({ onSize, onDevice, onWay }) {
    this.#lock.addEventListener('click', () => this.#setLocked(!this.locked));
    this.#seed.addEventListener('input', () => this.#setLocked(this.#hasSeed));
    byId('dice', HTMLButtonElement).addEventListener('click', () => {
      this.#seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
      this.#setLocked(true);
    });
    this.#fields.size.addEventListener('change', onSize);
    this.#fields.way.addEventListener('change', () => {
      this.#describeWay();
      onWay();
    });
    this.#device.addEventListener('change', onDevice);
  }

  /** @returns {import('./pkg/index.js').DeviceChoice} */
  get device() {
    return /** @type {import('./pkg/index.js').DeviceChoice} */ (this.#device.value);
  }

  set device(device) {
    if ([...this.#device.options].some(({ value }) => value === device)) this.#device.value = device;
  }

  /** Width and height to draw; undefined until the model is known. @returns {[number, number] | undefined} */
  get size() {
    const [width, height] = this.#fields.size.value.split('x').map(Number);
    return width && height ? [width, height] : undefined;
  }

  /** What the model can do. @param {import('./pkg/index.js').ModelInfo} info */
  show({ sizes, defaultSteps, defaultGuidance, chooses, ways, downloads }) {
    const { size, steps, guidance, candidates, way } = this.#fields;
    const wantedWay = way.value || this.#wantedWay;
    way.replaceChildren(...ways.map((name) => new Option(WAYS[name][0], name === ways[0] ? '' : name)));
    if ([...way.options].some(({ value }) => value === wantedWay)) way.value = wantedWay;
    byId('ways', HTMLLabelElement).hidden = this.#wayNote.hidden = ways.length < 2;
    this.#downloads = downloads;
    this.#ownWay = ways[0];
    this.#describeWay();
    byId('choose', HTMLLabelElement).hidden = !chooses;
    if (!chooses) candidates.value = '';
    const wanted = size.value || this.#wantedSize;
    size.replaceChildren(...sizes.map(([width, height]) => new Option(`${width} × ${height}`, `${width}x${height}`)));
    if ([...size.options].some(({ value }) => value === wanted)) size.value = wanted;
    steps.placeholder = String(defaultSteps);
    guidance.placeholder = String(defaultGuidance);
  }

  /** The advanced settings as they stand. @returns {Record<string, string>} */
  get recipe() {
    return Object.fromEntries(ADVANCED.map((name) => [name, this.#fields[name].value]));
  }

  /** @param {Record<string, string | undefined>} recipe what it does not name stays as it is */
  set recipe(recipe) {
    const { size, count, candidates } = this.#fields;
    for (const name of ADVANCED) if (recipe[name] !== undefined && name !== 'size') this.#fields[name].value = recipe[name];
    // A link may ask for a number that is not on the list.
    if (count.value === '') {
      const number = /^[1-9]\d*$/.test(recipe.count ?? '') ? String(recipe.count) : '1';
      if (![...count.options].some(({ value }) => value === number)) count.append(new Option(number));
      count.value = number;
    }
    if (candidates.selectedIndex < 0) candidates.value = '';
    if (recipe.way !== undefined) {
      this.#wantedWay = recipe.way;
      if (this.#fields.way.selectedIndex < 0) this.#fields.way.value = '';
      this.#describeWay();
    }
    if (recipe.size !== undefined) {
      this.#wantedSize = recipe.size;
      if ([...size.options].some(({ value }) => value === recipe.size)) size.value = recipe.size;
    }
    if (recipe.seed !== undefined) {
      this.#seed.value = recipe.seed;
      this.#setLocked(this.#hasSeed);
    }
  }

  /** Whether the seed stays as it is. */
  get locked() {
    return this.#lock.getAttribute('aria-pressed') === 'true';
  }

  set seed(/** @type {string} */ seed) {
    this.#seed.value = seed;
  }

  /** What a drawing is told; what the form leaves open stays the model's own default. */
  options() {
    /** @param {HTMLInputElement} input */
    const number = (input) => (input.value === '' ? undefined : Number(input.value));
    const { count, way, steps, guidance, negative } = this.#fields;
    const size = this.size;
    const candidates = this.#candidates;
    return {
      ...(this.locked && this.#hasSeed && { seed: this.#seed.value.trim() }),
      ...(size && { width: size[0], height: size[1] }),
      steps: number(steps),
      guidance: number(guidance),
      count: Number(count.value),
      candidates,
      keep: candidates ? /** @type {const} */ ('all') : undefined,
      search: way.value && candidates ? /** @type {const} */ ('beam') : undefined,
      way: /** @type {keyof typeof WAYS | ''} */ (way.value) || undefined,
      negativePrompt: negative.value.trim() || undefined,
    };
  }

  /** Of how many the best is wanted. A seed that is kept means one picture, but for what is put together from pieces: there it means all of them. */
  get #candidates() {
    const { count, candidates, way } = this.#fields;
    const several = Number(candidates.value);
    return several <= Number(count.value) || (this.locked && way.value === '') ? undefined : several;
  }

  #describeWay() {
    const way = /** @type {keyof typeof WAYS} */ (this.#fields.way.value || this.#ownWay);
    const bytes = this.#downloads[way] ?? 0;
    const fetched = bytes > 0 ? ` ${Math.max(1, Math.round(bytes / 1e6))} MB more are fetched for it, once.` : '';
    this.#wayNote.textContent = WAYS[way][1] + fetched;
  }

  /** The name of the way for one thing beside another, where it could be chosen and is not. */
  get betterWayForPairs() {
    const { way } = this.#fields;
    const there = [...way.options].some(({ value }) => value === 'hybrid');
    return there && way.value !== 'hybrid' ? WAYS.hybrid[0] : undefined;
  }

  get #hasSeed() {
    return !['', ANY_SEED].includes(this.#seed.value.trim());
  }

  /** @param {boolean} locked */
  #setLocked(locked) {
    this.#lock.setAttribute('aria-pressed', String(locked));
    this.#lock.title = locked ? 'Draw with a new seed each time' : 'Keep this seed';
  }
}
