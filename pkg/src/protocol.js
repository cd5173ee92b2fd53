/**
 * What the page and the worker say to each other. The worker begins with `started`. Then one job at a time: the page
 * sends `load` once, then any number of `generate`, `animate` and `encode`, each after the one before was answered; `cancel` and `ping` (which
 * is answered by `alive`) may come in between.
 *
 * @typedef {{ type: 'load', address: import('./model-url.js').ModelAddress, device: import('./contract.js').DeviceChoice, memoryMiB?: number, wasmUrl?: string }
 *   | { type: 'generate', request: import('./contract.js').EngineRequest }
 *   | { type: 'animate', image: import('./contract.js').Pixels, options: Partial<import('./options.js').Options> }
 *   | { type: 'encode', animation: import('./contract.js').EngineAnimation, save: import('./contract.js').EngineSave }
 *   | { type: 'cancel' }
 *   | { type: 'ping' }} ToWorker
 *
 * @typedef {object} Loaded
 * @property {import('./contract.js').EngineInfo} info
 * @property {import('./contract.js').DeviceInfo} device
 * @property {string} [storageNote] why the model is not stored; left out when it is
 * @property {string} [updateNote] why the stored model is used though there is another one; left out when there is none
 *
 * @typedef {{ type: 'started', lock?: string }} Started `lock` is a Web Lock that the worker holds as long as it lives
 *
 * @typedef {Started
 *   | { type: 'alive' }
 *   | { type: 'progress', event: import('./load.js').Progress }
 *   | { type: 'loaded', loaded: Loaded }
 *   | { type: 'step', event: import('./contract.js').EngineStep }
 *   | { type: 'generated', drawing: import('./contract.js').EngineDrawing }
 *   | { type: 'animated', animation: import('./contract.js').EngineAnimation }
 *   | { type: 'encoded', file: import('./contract.js').EngineFile }
 *   | { type: 'failed', error: import('./errors.js').PlainError }} FromWorker
 */

export {};
