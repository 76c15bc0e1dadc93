/** Charts in SVG: a drawing that is made anew when its width or its data change, and the parts it is made of. */

import { h, svg } from "./dom.js";

/** A chart. `draw(width)` answers with its parts and whatever height they need: { height, parts }. */
export function chart({ label, draw, ...attributes }) {
  const picture = svg("svg", { role: "img", "aria-label": label, "data-picture": "", ...attributes });
  const element = h("div", { class: "chart" }, picture);
  let width = 0;
  const redraw = () => {
    if (!width) return;
    const { height, parts } = draw(width);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    picture.replaceChildren(...parts);
  };
  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now !== width) {
      width = now;
      redraw();
    }
  }).observe(element);
  return { element, picture, redraw };
}

/** A linear scale from values to pixels, which knows its way back. */
export function scale([low, high], [from, to]) {
  const at = (value) => from + ((value - low) / (high - low)) * (to - from);
  at.invert = (pixel) => low + ((pixel - from) / (to - from)) * (high - low);
  return at;
}

const fixed = (number) => Number(number.toFixed(2));

/** The d of a line through points [x, y]. */
export const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${fixed(x)} ${fixed(y)}`).join("");

/** Some text at a place; `anchor` is start, middle or end. */
export const text = (x, y, words, anchor = "middle", attributes = {}) =>
  svg("text", { x: fixed(x), y: fixed(y), "text-anchor": anchor, ...attributes }, words);

/** The ticks of an axis below a chart, with its name. */
export function bottom(at, y, ticks, name, middle) {
  const marks = ticks.flatMap(([value, words]) => [
    svg("line", { class: "tick", x1: fixed(at(value)), x2: fixed(at(value)), y1: y, y2: y + 4 }),
    text(at(value), y + 16, words),
  ]);
  return [...marks, text(middle, y + 33, name, "middle", { class: "axis" })];
}

/** The ticks of an axis at the left of a chart, with its name above it. */
export function left(at, x, ticks, name, top) {
  const marks = ticks.flatMap(([value, words]) => [
    svg("line", { class: "tick", x1: x - 4, x2: x, y1: fixed(at(value)), y2: fixed(at(value)) }),
    text(x - 8, at(value) + 4, words, "end"),
  ]);
  return [...marks, text(0, top, name, "start", { class: "axis" })];
}

/** Calls `told(x)` with where, in pixels of the chart, the pointer is pressed or dragged. */
export function draggable(picture, told) {
  const tell = (event) => {
    const box = picture.getBoundingClientRect();
    told(event.clientX - box.left, event.clientY - box.top);
  };
  picture.classList.add("draggable");
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    picture.setPointerCapture(event.pointerId);
    tell(event);
  });
  picture.addEventListener("pointermove", (event) => picture.hasPointerCapture(event.pointerId) && tell(event));
}
