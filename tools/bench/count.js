// Counts what is asked of WebGPU: a page or worker imports this first. `counts` grows; take differences.

/** @typedef {'dispatches' | 'pipelines' | 'submits' | 'readbacks' | 'buffers' | 'bufferBytes'} Counted */

/** @type {Record<Counted, number>} */
export const counts = { dispatches: 0, pipelines: 0, submits: 0, readbacks: 0, buffers: 0, bufferBytes: 0 };

/**
 * @param {string} type @param {string} method @param {Counted} what
 * @param {(args: any[]) => void} [also]
 */
function wrap(type, method, what, also) {
  const prototype = /** @type {any} */ (globalThis)[type]?.prototype;
  const original = prototype?.[method];
  if (!original) return;
  prototype[method] = function (/** @type {any[]} */ ...args) {
    counts[what] += 1;
    also?.(args);
    return original.apply(this, args);
  };
}

wrap('GPUComputePassEncoder', 'dispatchWorkgroups', 'dispatches');
wrap('GPUComputePassEncoder', 'dispatchWorkgroupsIndirect', 'dispatches');
wrap('GPUDevice', 'createComputePipeline', 'pipelines');
wrap('GPUDevice', 'createComputePipelineAsync', 'pipelines');
wrap('GPUQueue', 'submit', 'submits');
wrap('GPUBuffer', 'mapAsync', 'readbacks');
wrap('GPUDevice', 'createBuffer', 'buffers', ([{ size }]) => { counts.bufferBytes += size; });

globalThis.addEventListener('message', (event) => {
  if (event.data !== 'count') return;
  event.stopImmediatePropagation();
  globalThis.postMessage({ type: 'counts', counts: { ...counts } });
});
