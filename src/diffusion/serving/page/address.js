/** The whole state of the page, kept in its address: #view?name=value&… can be sent to somebody. */

/** A whole number from low to high. */
export const whole = (fallback, low, high) => ({
  fallback,
  read: (text) => (/^-?\d+$/.test(text) && text >= low && text <= high ? Number(text) : fallback),
});

/** A number from low to high. */
export const number = (fallback, low, high) => ({
  fallback,
  read: (text) => (text.trim() && Number(text) >= low && Number(text) <= high ? Number(text) : fallback),
});

/** A word, one of those known; without a list, any. */
export const word = (fallback, known = null) => ({
  fallback,
  read: (text) => (known === null || known.includes(text) ? text : fallback),
});

/** [view, values] of an address such as "#draw?strength=5"; what it lacks or cannot mean is as the fields say. */
export function read(hash, views) {
  const [name, query = ""] = hash.replace(/^#/, "").split("?");
  const view = Object.hasOwn(views, name) ? name : Object.keys(views)[0];
  const asked = new URLSearchParams(query);
  const fields = Object.entries(views[view].fields);
  return [
    view,
    Object.fromEntries(fields.map(([key, kind]) => [key, kind.read(asked.get(key) ?? `${kind.fallback}`)])),
  ];
}

/** The address of a state. */
export const write = (view, values) => `#${view}?${new URLSearchParams(values)}`;
