/** Things that small models draw well and that make people smile. */
export const IDEAS = [
  'a red apple', 'a smiling sun', 'a pink heart', 'a blue butterfly', 'a green leaf', 'a yellow star',
  'a slice of watermelon', 'a happy ghost', 'a purple flower', 'an orange cat', 'a strawberry', 'a full moon',
  'a red balloon', 'a lemon', 'a cup of coffee', 'a rainbow', 'a tulip', 'a cheerful pumpkin', 'a blue whale', 'a mushroom',
];

/**
 * @param {string} but what stands there now
 * @returns {string}
 */
export function anIdea(but) {
  const others = IDEAS.filter((idea) => idea !== but);
  return others[Math.floor(Math.random() * others.length)];
}
