/** @param {number} bytes */
export function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

/**
 * A load's progress in words for people, with how much of that phase is done where that is known.
 *
 * @param {import('./load.js').Progress} event
 * @returns {{ text: string, fraction?: number }}
 */
export function describeProgress(event) {
  switch (event.phase) {
    case 'start': return { text: 'Starting the drawing engine' };
    case 'download': return {
      text: `${event.stored ? 'Reading the model from this browser' : 'Downloading the model'}: ${megabytes(event.loaded)} of ${megabytes(event.total)} MB`,
      fraction: event.total === 0 ? 1 : event.loaded / event.total,
    };
    case 'verify': return { text: `Checking ${event.file}` };
    case 'upload': return { text: `Moving the model to the device: part ${event.done} of ${event.count}`, fraction: event.done / event.count };
    case 'compile': return { text: 'Preparing the device' };
    case 'notice': return { text: event.message };
    case 'ready': return { text: 'Ready to draw', fraction: 1 };
  }
}
