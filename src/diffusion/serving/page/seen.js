/** What a classifier sees in one picture: a bar for each class. */

import { chart, scale, text } from "./chart.js";
import { svg } from "./dom.js";

const ROW = 17; // pixels

export function seen() {
  let shown = null;
  const made = chart({
    label: "Class probabilities of the drawing",
    draw(width) {
      if (!shown) return { height: 10 * ROW, parts: [] };
      const { labels, probabilities } = shown;
      const start = 8 + 7 * Math.max(...labels.map(({ length }) => length));
      const x = scale([0, 1], [start, width - 44]);
      const best = probabilities.indexOf(Math.max(...probabilities));
      const parts = labels.flatMap((label, i) => {
        const y = i * ROW;
        const box = { y: y + 2, height: ROW - 4, x: x(0) };
        const strong = i === best ? { class: "strong" } : {};
        return [
          text(start - 7, y + 13, label, "end", strong),
          svg("rect", { class: "empty", ...box, width: x(1) - x(0) }),
          svg("rect", { class: "cell", ...box, width: x(probabilities[i]) - x(0) }),
          text(width, y + 13, `${Math.round(100 * probabilities[i])} %`, "end", strong),
        ];
      });
      return { height: labels.length * ROW, parts };
    },
  });
  return {
    element: made.element,
    show(next) {
      shown = next;
      if (next) {
        const best = Math.max(...next.probabilities);
        const name = next.labels[next.probabilities.indexOf(best)];
        made.picture.setAttribute("aria-label", `The classifier sees ${name} with ${Math.round(100 * best)} %`);
      }
      made.redraw();
    },
  };
}
