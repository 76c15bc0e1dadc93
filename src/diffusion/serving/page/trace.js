/** Below the timeline: how much noise is left at each step, and what a classifier sees in the estimate of a sample. */

import { bottom, chart, draggable, left, line, scale, text } from "./chart.js";
import { svg } from "./dom.js";

const [TOP, LEVELS, ROW, GAP] = [22, 64, 15, 40]; // pixels

const mostLikely = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

/** The class that the last frame ends in, and the first frame from which on it stays the likeliest. */
export function decided(frames, sample) {
  const seen = frames.map(({ probabilities }) => mostLikely(probabilities[sample]));
  let first = seen.length - 1;
  while (first > 0 && seen[first - 1] === seen.at(-1)) first--;
  return { label: seen.at(-1), frame: first };
}

/** The levels of noise and signal, or of averaging. */
function levels(frames, x, width, start) {
  const y = scale([0, 1], [TOP + LEVELS, TOP]);
  const trace = (name, value) =>
    svg("path", { class: name, d: line(frames.map((frame, k) => [x(k), y(value(frame))])) });
  const axis = left(
    y,
    start,
    [
      [0, "0"],
      [1, "1"],
    ],
    "",
    0,
  );
  if (frames[0].sigma == null) {
    return [
      text(start, 12, "share of lines averaged, t", "start", { class: "axis" }),
      trace("curve", ({ t }) => t),
      ...axis,
    ];
  }
  return [
    text(start, 12, "noise σ", "start", { class: "axis" }),
    text(width, 12, "signal α (dashed)", "end", { class: "axis" }),
    trace("second", ({ alpha }) => alpha),
    trace("curve", ({ sigma }) => sigma),
    ...axis,
  ];
}

/** One row a class, one column a frame, as dark as the class is likely. */
function cells(frames, most, x, labels, sample, top, start) {
  const [low, high] = [x(0), x(most)];
  const edge = (k) => Math.round(Math.min(Math.max(x(k - 0.5), low), high));
  const final = decided(frames, sample).label;
  return labels.flatMap((label, row) => {
    const y = top + row * ROW;
    const name = text(start - 8, y + 11, label, "end", row === final ? { class: "strong" } : {});
    const boxes = frames.map(({ probabilities }, k) => {
      const opacity = probabilities[sample][row];
      const box = { x: edge(k), y, width: edge(k + 1) - edge(k), height: ROW - 2 };
      return opacity < 0.005 ? "" : svg("rect", { class: "cell", ...box, "fill-opacity": opacity.toFixed(3) });
    });
    return [
      name,
      svg("rect", { class: "empty", x: low, y, width: high - low, height: ROW - 2 }),
      ...boxes.filter(Boolean),
    ];
  });
}

/** What the shades mean. */
const legend = (right, y) => [
  text(right - 66, y, "0", "end"),
  ...[0, 0.25, 0.5, 0.75, 1].flatMap((opacity, i) => {
    const box = { x: right - 62 + i * 10, y: y - 10, width: 10, height: 11 };
    return [svg("rect", { class: "empty", ...box }), svg("rect", { class: "cell", ...box, "fill-opacity": opacity })];
  }),
  text(right, y, "1", "end"),
];

/** The times under some of the frames, as many as there is room for. */
function times(frames, width) {
  const most = Math.max(2, Math.floor(width / 70));
  const every = Math.max(1, Math.ceil((frames.length - 1) / (most - 1)));
  const shown = frames.map(({ t }, k) => [k, t.toFixed(2).replace(/\.?0+$/, "")]);
  return shown.filter(([k]) => k % every === 0 && (frames.length - 1 - k >= every / 2 || k === frames.length - 1));
}

/** `told(frame)` hears where it is pressed. */
export function trace(told) {
  let state = null;
  let at = null;
  const made = chart({
    label: "Noise level and class probabilities over the steps",
    draw(width) {
      if (!state?.frames.length) return { height: 1, parts: [] };
      const { frames, most, frame, sample, labels, start } = state;
      const right = width - 8;
      const x = scale([0, Math.max(most, 1)], [start, right]);
      at = (pixel) => Math.round(Math.min(Math.max(x.invert(pixel), 0), frames.length - 1));
      const classes = labels.length && frames[0].probabilities ? labels : [];
      const top = TOP + LEVELS + GAP;
      const base = classes.length ? top + classes.length * ROW : TOP + LEVELS + 4;
      const axis = `time t: 1 is ${frames[0].sigma == null ? "averages" : "noise"}, 0 is the picture`;
      const heading = text(start, top - 8, "what a classifier sees in x̂₀", "start", { class: "axis" });
      const parts = [
        ...levels(frames, x, right, start),
        ...(classes.length
          ? [heading, ...legend(right, top - 8), ...cells(frames, most, x, classes, sample, top, start)]
          : []),
        svg("line", { class: "cursor", x1: x(frame), x2: x(frame), y1: TOP - 4, y2: base }),
        ...bottom(x, base, times(frames, right - start), axis, (start + right) / 2),
      ];
      return { height: base + 38, parts };
    },
  });
  draggable(made.picture, (pixel) => at && told(at(pixel)));
  return {
    element: made.element,
    show(next) {
      state = next;
      made.redraw();
    },
  };
}
