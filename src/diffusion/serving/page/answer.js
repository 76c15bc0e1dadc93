/** What the denoiser answers at one time, for every number that it may be given. */

import { bottom, chart, left, line, scale } from "./chart.js";
import { RANGE, TICKS, grid } from "./crowd.js";
import { svg } from "./dom.js";
import { along, denoise } from "./mixture.js";

const [TOP, BASE, LEFT] = [26, 240, 44]; // pixels

/** `show` wants { parts, paths, path, t }. */
export function answer() {
  let state = null;
  const made = chart({
    label: "What the denoiser answers for every x at this time",
    draw(width) {
      const { parts, paths, path, t } = state;
      const [x, y] = [scale(RANGE, [LEFT, width - 8]), scale(RANGE, [BASE, TOP])];
      const point = (value) => [x(value), y(denoise(parts, value, t))];
      const dot = (states, kind, r) => {
        const [cx, cy] = point(along(states, t));
        return svg("circle", { class: kind, cx, cy, r });
      };
      const drawn = [
        svg("path", { class: "guide", d: line(RANGE.map((value) => [x(value), y(value)])) }),
        svg("path", { class: "curve", d: line(grid(300).map(point)) }),
        ...paths.map((states) => dot(states, "dot", 2.5)),
        dot(paths[path], "dot followed", 5),
        ...left(y, LEFT, TICKS, "its answer, the mean of x₀", 12),
        ...bottom(x, BASE, TICKS, `what it is given, x at t = ${t.toFixed(2)}`, (LEFT + width) / 2),
      ];
      return { height: BASE + 38, parts: drawn };
    },
  });
  return {
    element: made.element,
    show(next) {
      state = next;
      made.redraw();
    },
  };
}
