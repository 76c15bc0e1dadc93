/** A sprite, its pictures laid out in columns, each pixel a square. */

import { h } from "./dom.js";

const GAP = 1; // pixels of a picture between two of them

/** `caption` stands above; `columns(n)` says how n pictures are laid out. */
export function panel({ caption = [], columns = (n) => Math.ceil(Math.sqrt(n)), label }) {
  const canvas = h("canvas", { width: 28, height: 28, role: "img", "aria-label": label, "data-picture": "" });
  const under = h("div", { class: "marks" });
  const title = h("figcaption", { "data-caption": "" }, ...[caption].flat());
  const note = h("p", { class: "note", "data-caption": "" });
  const element = h("figure", { class: "panel" }, title, h("div", { class: "frame" }, canvas, under), note);
  const context = canvas.getContext("2d");

  /** Paints the `count` pictures of a sprite. */
  function paint(sprite, count) {
    const [width, height, across] = [sprite.width / count, sprite.height, columns(count)];
    const size = [across * (width + GAP) - GAP, Math.ceil(count / across) * (height + GAP) - GAP];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    context.clearRect(0, 0, ...size);
    for (let i = 0; i < count; i++) {
      const [x, y] = [(i % across) * (width + GAP), Math.floor(i / across) * (height + GAP)];
      context.drawImage(sprite, i * width, 0, width, height, x, y, width, height);
    }
  }
  return {
    element,
    under,
    paint,
    name: (words) => title.replaceChildren(...[words].flat()),
    note: (words) => (note.textContent = words),
    clear: () => context.clearRect(0, 0, canvas.width, canvas.height),
  };
}
