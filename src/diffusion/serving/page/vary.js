/** Bring back: a drawing, noised to each of some times, and what comes back from there. */

import { bottom, chart, draggable, left, line, scale, text } from "./chart.js";
import { h, svg, variable } from "./dom.js";
import { panel } from "./panel.js";
import { ask } from "./run.js";
import { timeline } from "./timeline.js";

const STRENGTHS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
const COUNT = 4; // draws from each
const [TOP, BASE, LEFT] = [24, 150, 44]; // pixels

const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / numbers.length;

/** `fields(extra)` are those of a request about the drawing. */
export function vary({ change, hear }) {
  let [runs, at, original, values] = [[], 0, null, null];
  const noised = panel({ caption: "noised", label: "The drawing with noise" });
  const back = panel({ caption: ["brought back from there, four times"], label: "What comes back" });
  const clock = timeline({
    label: "Strength",
    told: (i) => change({ strength: i + 1 }),
    text: (i) => `from t = ${STRENGTHS[i]}`,
  });
  const story = h("p", { class: "story" });

  const kept = (run) =>
    original === null ? 0 : mean(run.frames.at(-1).probabilities.map((each) => each[original.best]));
  const finished = () =>
    runs.map((run, i) => [i, run]).filter(([, run]) => run.state === "done" && run.frames[0].probabilities);

  const curve = chart({
    label: "How likely the drawing's class still is, against the strength",
    draw(width) {
      const right = width - 12; // room for half a number
      const x = scale([0, STRENGTHS.length - 1], [LEFT, right]);
      const y = scale([0, 1], [BASE, TOP]);
      curve.at = (pixel) => Math.round(Math.min(Math.max(x.invert(pixel), 0), STRENGTHS.length - 1));
      const points = original ? finished().map(([i, run]) => [x(i), y(kept(run))]) : [];
      const name = original ? `probability that it is still “${original.name}”` : "probability";
      const parts = [
        text(LEFT, 12, name, "start", { class: "axis" }),
        svg("path", { class: "curve", d: line(points) }),
        ...points.map(([cx, cy]) => svg("circle", { class: "mark", cx, cy, r: 4 })),
        svg("line", { class: "cursor", x1: x(at), x2: x(at), y1: TOP, y2: BASE }),
        ...left(
          y,
          LEFT,
          [
            [0, "0"],
            [0.5, "½"],
            [1, "1"],
          ],
          "",
          0,
        ),
        ...bottom(
          x,
          BASE,
          STRENGTHS.map((t, i) => [i, String(t)]),
          "strength: the time t that it is brought back from",
          (LEFT + right) / 2,
        ),
      ];
      return { height: BASE + 38, parts };
    },
  });
  draggable(curve.picture, (pixel) => clock.move(curve.at(pixel)));

  function paint() {
    const run = runs[at];
    const shown = run.state === "done";
    element.classList.toggle("stale", !shown);
    if (shown) {
      noised.paint(run.frames[0].x_t, COUNT);
      back.paint(run.frames.at(-1).x_t, COUNT);
    }
    noised.name([variable("x", "t"), ` at t = ${STRENGTHS[at]}`]);
    clock.show(at, STRENGTHS.length - 1);
    curve.redraw();
    tell();
  }

  function tell() {
    const all = finished();
    if (!original || all.length < STRENGTHS.length) return (story.textContent = "");
    const lost = all.find(([, run]) => kept(run) < 0.5);
    story.textContent = lost
      ? `It stops being a “${original.name}” at t = ${STRENGTHS[lost[0]]}, where less than half of that is left.`
      : `It stays a “${original.name}” even from t = ${STRENGTHS.at(-1)}.`;
  }

  function heard() {
    paint();
    hear();
  }

  const element = h(
    "div",
    { class: "mode" },
    h("div", { class: "pair" }, noised.element, back.element),
    clock.element,
    curve.element,
    story,
  );
  return {
    element,
    about:
      "Noise hides details first and identity last. The model draws what noise has hidden anew: where does " +
      "your digit become another one?",
    runs: () => runs,
    update(next, fields, name) {
      values = next;
      at = values.strength - 1;
      const made = STRENGTHS.map((strength) => ask("/v1/images/edits", fields({ n: COUNT, strength }), name));
      if (made.some((run, i) => run !== runs[i])) {
        this.leave();
        runs = made;
        runs.forEach((run) => run.listeners.add(heard));
      }
      paint();
    },
    /** What the classifier sees in the drawing itself. */
    recognise(seen) {
      original = seen;
      if (runs.length) paint();
    },
    leave() {
      clock.stop();
      for (const run of runs) {
        run.listeners.delete(heard);
        run.stop();
      }
      runs = [];
    },
  };
}
