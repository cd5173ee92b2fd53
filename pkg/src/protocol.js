/**
 * What the page and the worker say to each other. One job at a time: the page sends `load` once, then any number
 * of `generate`, each after the one before was answered; `cancel` may come in between.
 *
 * @typedef {{ type: 'load', address: import('./model-url.js').ModelAddress, device: import('./contract.js').DeviceChoice, memoryMiB?: number, wasmUrl?: string }
 *   | { type: 'generate', request: import('./contract.js').EngineRequest }
 *   | { type: 'cancel' }} ToWorker
 *
 * @typedef {object} Loaded
 * @property {import('./contract.js').EngineInfo} info
 * @property {import('./contract.js').DeviceInfo} device
 * @property {string} [storageNote] why the model is not stored; left out when it is
 *
 * @typedef {{ type: 'progress', event: import('./load.js').Progress }
 *   | { type: 'loaded', loaded: Loaded }
 *   | { type: 'step', event: import('./contract.js').EngineStep }
 *   | { type: 'generated', drawing: import('./contract.js').EngineDrawing }
 *   | { type: 'failed', error: import('./errors.js').PlainError }} FromWorker
 */

export {};
