/** How the numbers of a mixture are spread: at all times as a haze, and counted, as bars. */

import { svg, id } from "./dom.js";
import { density } from "./mixture.js";

export const RANGE = [-4, 4]; // of the numbers that are drawn

/** A number with two digits, and a minus that is one. */
export const signed = (number) => number.toFixed(2).replace("-", "−");

export const TICKS = [-4, -2, 0, 2, 4].map((value) => [value, String(value).replace("-", "−")]);

/** `count` + 1 numbers over that range. */
export const grid = (count) =>
  Array.from({ length: count + 1 }, (_, i) => RANGE[0] + (i / count) * (RANGE[1] - RANGE[0]));

/** The density at all times, as columns whose opacity is its root, so that its tails are seen too. */
export function haze(parts, x, y, most) {
  const columns = 40;
  const shades = 32;
  const [top, base] = [y(RANGE[1]), y(RANGE[0])];
  return Array.from({ length: columns }, (_, i) => {
    const [start, end] = [i, i + 1].map((edge) => Math.round(x(1 - edge / columns)));
    const t = 1 - (i + 0.5) / columns;
    const name = id("haze");
    const stops = Array.from({ length: shades + 1 }, (_, j) => {
      const value = RANGE[1] - (j / shades) * (RANGE[1] - RANGE[0]);
      const opacity = Math.min(0.8 * Math.sqrt(density(parts, value, t) / most), 1);
      return svg("stop", { class: "haze", offset: (j / shades).toFixed(4), "stop-opacity": opacity.toFixed(3) });
    });
    const fade = svg("linearGradient", { id: name, x1: 0, x2: 0, y1: 0, y2: 1 }, ...stops);
    const box = { x: start, y: top, width: end - start, height: base - top, "shape-rendering": "crispEdges" };
    return svg("g", {}, fade, svg("rect", { ...box, fill: `url(#${name})` }));
  });
}

/** How many of the numbers fall into each cell of the range, as bars to the right of x. */
export function bars(numbers, x, y) {
  const cells = 40;
  const height = (RANGE[1] - RANGE[0]) / cells;
  const counts = Array(cells).fill(0);
  for (const number of numbers) counts[Math.floor((number - RANGE[0]) / height)]++; // one outside is not drawn
  return counts.slice(0, cells).map((count, i) => {
    const share = count / numbers.length / height;
    const edge = y(RANGE[0] + (i + 1) * height);
    return svg("rect", {
      class: "bar",
      x: x(0),
      y: edge,
      width: x(share) - x(0),
      height: y(RANGE[0] + i * height) - edge - 1,
    });
  });
}
