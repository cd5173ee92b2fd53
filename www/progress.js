import { describeProgress } from './pkg/index.js';
import { byId } from './dom.js';

/** @typedef {'download' | 'upload' | 'compile' | 'draw'} Stage */

/** The four bars. Each shows only what has really happened in its stage. */
export class ProgressView {
  #section = byId('progress', HTMLElement);
  #text = byId('progress-text', HTMLParagraphElement);
  /** @type {Map<string, { item: HTMLElement, bar: HTMLProgressElement }>} */
  #stages = new Map();
  /** The last step of each picture: several may be under way side by side. @type {number[]} */
  #steps = [];

  constructor() {
    for (const item of this.#section.querySelectorAll('li')) {
      const bar = item.querySelector('progress');
      if (bar) this.#stages.set(String(item.dataset.stage), { item, bar });
    }
  }

  /** @param {import('./pkg/index.js').Progress} event */
  load(event) {
    const { text, fraction } = describeProgress(event);
    switch (event.phase) {
      case 'start':
        this.#reset();
        this.#set('download', undefined);
        break;
      case 'download': this.#set('download', fraction); break;
      case 'upload': this.#set('upload', fraction); break;
      case 'compile': this.#set('compile', undefined); break;
      case 'ready': this.#set('compile', 1); break;
      // Checking takes a blink and storage has its own line: neither may wipe out the megabytes.
      case 'verify': case 'notice': return;
    }
    this.#section.hidden = false;
    this.#text.textContent = text;
  }

  /** @param {import('./pkg/index.js').Step} event */
  step({ stage, image, count, step, steps }) {
    this.#section.hidden = false;
    // Pictures that are put together from pieces are under way side by side.
    if (stage !== 'denoise') {
      this.#text.textContent = `${stage === 'layout' ? 'Laying out' : 'Drawing'}${count > 1 ? ` ${count} pictures` : ''}: row ${step} of ${steps}`;
      this.#set('draw', step / steps);
      return;
    }
    this.#text.textContent = `Drawing${count > 1 ? ` picture ${image + 1} of ${count}` : ''}: step ${step} of ${steps}`;
    this.#steps[image] = step;
    this.#set('draw', this.#steps.reduce((sum, done) => sum + done, 0) / (count * steps));
  }

  /** The words are read, the first step is on its way. */
  reading() {
    this.#section.hidden = false;
    this.#text.textContent = 'Reading your words';
    this.#steps = [];
    this.#set('draw', undefined);
  }

  hide() {
    this.#section.hidden = true;
  }

  #reset() {
    for (const { item, bar } of this.#stages.values()) {
      bar.value = 0;
      item.classList.remove('now');
    }
  }

  /**
   * @param {Stage} stage
   * @param {number | undefined} fraction undefined while it cannot be known
   */
  #set(stage, fraction) {
    for (const [name, { item, bar }] of this.#stages) {
      item.classList.toggle('now', name === stage);
      if (name !== stage) continue;
      if (fraction === undefined) bar.removeAttribute('value');
      else bar.value = fraction;
    }
  }
}
