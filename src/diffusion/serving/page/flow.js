/** Paths from noise to data, over the density at all times, and at their side the density at one time. */

import { bottom, chart, draggable, left, line, scale, text } from "./chart.js";
import { RANGE, TICKS, bars, grid, haze } from "./crowd.js";
import { svg } from "./dom.js";
import { along, density } from "./mixture.js";

const [TOP, BASE, LEFT, GAP] = [26, 330, 44, 18]; // pixels
const TIMES = [1, 0.75, 0.5, 0.25, 0].map((t) => [t, String(t)]);

/** Where things are on a chart of so many pixels: times at x, numbers at y, densities at z, beside x. */
function places(width, parts) {
  const aside = Math.min(170, width * 0.24);
  const split = width - aside - GAP;
  const most = Math.max(...grid(400).map((x) => density(parts, x, 0)));
  const y = scale(RANGE, [BASE, TOP]);
  return { split, aside, most, x: scale([1, 0], [LEFT, split]), y, z: scale([0, most], [split + GAP, width - 2]) };
}

const route = (states, { x, y }) => line(states.map((value, k) => [x(1 - k / (states.length - 1)), y(value)]));

/** All that stays the same when the time is moved. */
function backdrop({ parts, paths }, at) {
  const routes = paths.map((states) => svg("path", { class: "route", d: route(states, at) }));
  return [...haze(parts, at.x, at.y, at.most), ...routes];
}

/** The states of all paths at one time. */
function moment({ paths, path, t }, at) {
  const dot = (states, kind, r) => svg("circle", { class: kind, cx: at.x(t), cy: at.y(along(states, t)), r });
  return [
    svg("path", { class: "route followed", d: route(paths[path], at) }),
    svg("line", { class: "cursor", x1: at.x(t), x2: at.x(t), y1: TOP, y2: BASE }),
    ...paths.map((states) => dot(states, "dot", 2.5)),
    dot(paths[path], "dot followed", 5),
  ];
}

/** Their density at that time, and how many of the counted paths are where. */
function profile({ parts, counted, t }, { y, z }, width) {
  const curve = grid(200).map((value) => [z(density(parts, value, t)), y(value)]);
  return [
    ...bars(
      counted.map((states) => along(states, t)),
      z,
      y,
    ),
    svg("path", { class: "curve", d: line(curve) }),
    svg("line", { class: "tick", x1: z(0), x2: z(0), y1: TOP, y2: BASE }),
    text(width - 2, 12, `density at t = ${t.toFixed(2)}`, "end", { class: "axis" }),
  ];
}

/** `told(t)` hears where it is pressed. `show` wants { parts, paths, counted, path, t }. */
export function flow(told) {
  let [state, at, kept] = [null, null, {}];
  const made = chart({
    label: "Paths of samples from noise at the left to data at the right, over the density at every time",
    draw(width) {
      at = places(width, state.parts);
      made.element.parentElement.style.setProperty("--right", `${at.aside + GAP}px`);
      if (kept.paths !== state.paths || kept.width !== width) {
        kept = { paths: state.paths, width, drawn: backdrop(state, at) };
      }
      const axes = [
        ...left(at.y, LEFT, TICKS, "x", 12),
        ...bottom(at.x, BASE, TIMES, "time t: 1 is noise, 0 is data", (LEFT + at.split) / 2),
      ];
      return {
        height: BASE + 38,
        parts: [...kept.drawn, ...moment(state, at), ...profile(state, at, width), ...axes],
      };
    },
  });
  draggable(made.picture, (pixel) => told(Math.min(Math.max(at.x.invert(pixel), 0), 1)));
  return {
    element: made.element,
    show(next) {
      state = next;
      made.redraw();
    },
  };
}
