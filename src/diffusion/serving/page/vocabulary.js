/** The words that a model knows, and what it makes of a sentence. */

/** The words of a sentence, as the server takes them, with the places where they begin. */
export const split = (text) => [...text.toLowerCase().matchAll(/[\p{L}\p{N}]+(?:['-][\p{L}\p{N}]+)*/gu)];

/** How many letters have to be put in, left out or changed to make one word of another (Levenshtein, 1966). */
export function distance(from, to) {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (const [i, letter] of [...from].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...to].entries()) {
      next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (letter === other ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1);
}

/** The known word that shares most with another; null if none shares half of its letters. */
function nearest(word, words) {
  const apart = (each) => distance(word, each) / Math.max(word.length, each.length);
  const best = words.reduce((a, b) => (apart(b) < apart(a) ? b : a));
  return apart(best) <= 0.5 ? best : null;
}

/**
 * The first word of a sentence that is not among `words`: { word, at, near }; null if there is none, or if any will do.
 * `open`: the last one is still being written, and may become one of them.
 */
export function unknown(text, words, open = false) {
  if (!words.length) return null;
  const begun = (word) => open && text.toLowerCase().endsWith(word) && words.some((each) => each.startsWith(word));
  const found = split(text).find(([word]) => !words.includes(word) && !begun(word));
  return found ? { word: found[0], at: found.index, near: nearest(found[0], words) } : null;
}

/** Words that the last one of a sentence may become, the shortest first. */
export function completions(text, words, most) {
  const last = split(text).at(-1)?.[0];
  if (!last || !text.toLowerCase().endsWith(last)) return [];
  const longer = words.filter((each) => each.startsWith(last) && each !== last);
  return longer.sort((a, b) => a.length - b.length).slice(0, most);
}
