/** Elements of HTML and SVG, made in one expression: h("button", { class: "primary", onclick: draw }, "Draw"). */

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** x_t, in italics with its index, for a sentence. */
export const variable = (name, index) => h("var", {}, name, h("sub", {}, index));

let used = 0;

/** An id that no other element has. */
export const id = (name) => `${name}-${++used}`;

/** `work`, put off until nobody has asked for it for some milliseconds. */
export function later(milliseconds, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}
