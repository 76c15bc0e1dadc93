/** Bring back: a drawing, noised to each of some times, and what comes back from there. */

import { bottom, chart, draggable, left, line, scale, text } from "./chart.js";
import { h, svg, variable } from "./dom.js";
import { panel } from "./panel.js";
import { ask } from "./run.js";
import { timeline } from "./timeline.js";

const STRENGTHS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
const LAST = STRENGTHS.length - 1;
const COUNT = 4; // draws from each
const [TOP, BASE, LEFT] = [24, 150, 44]; // pixels
const SHARES = Object.entries({ 0: "0", 0.5: "½", 1: "1" });

const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / numbers.length;

export class Vary {
  about =
    "Noise hides details first and identity last. The model draws what noise has hidden anew: where does your digit " +
    "become another one?";

  constructor(change, hear) {
    Object.assign(this, { runs: [], at: 0, original: null });
    this.heard = () => {
      this.paint();
      hear();
    };
    const told = (i) => change({ strength: i + 1 });
    this.noised = panel({ label: "The drawing with noise" });
    this.back = panel({ label: "What comes back" });
    this.clock = timeline({ label: "Strength", told, text: (i) => `from t = ${STRENGTHS[i]}` });
    this.curve = chart({
      label: "How likely the drawing's class still is, against the strength",
      draw: (width) => this.draw(width),
    });
    draggable(this.curve.picture, (pixel) =>
      this.clock.move(Math.round(Math.min(Math.max(this.x.invert(pixel), 0), LAST))),
    );
    this.story = h("p", { class: "story" });
    const pair = h("div", { class: "pair" }, this.noised.element, this.back.element);
    this.element = h("div", { class: "mode" }, pair, this.clock.element, this.curve.element, this.story);
  }

  /** [place, how likely the drawing's class is, in the mean] of each strength that is done. */
  get kept() {
    const done = this.original ? [...this.runs.entries()].filter(([, { state }]) => state === "done") : [];
    return done.map(([i, run]) => [i, mean(run.frames.at(-1).probabilities.map((each) => each[this.original.best]))]);
  }

  draw(width) {
    const { at, original } = this;
    const right = width - 12; // room for half a number
    const [x, y] = [scale([0, LAST], [LEFT, right]), scale([0, 1], [BASE, TOP])];
    const points = this.kept.map(([i, share]) => [x(i), y(share)]);
    const name = original ? `probability that it is still “${original.name}”` : "probability";
    const times = STRENGTHS.map((t, i) => [i, String(t)]);
    this.x = x;
    const parts = [
      text(LEFT, 12, name, "start", { class: "axis" }),
      svg("path", { class: "curve", d: line(points) }),
      ...points.map(([cx, cy]) => svg("circle", { class: "mark", cx, cy, r: 4 })),
      svg("line", { class: "cursor", x1: x(at), x2: x(at), y1: TOP, y2: BASE }),
      ...left(y, LEFT, SHARES, "", 0),
      ...bottom(x, BASE, times, "strength: the time t that it is brought back from", (LEFT + right) / 2),
    ];
    return { height: BASE + 38, parts };
  }

  paint() {
    const { state, frames } = this.runs[this.at];
    this.element.classList.toggle("stale", state !== "done");
    if (state === "done") {
      this.noised.paint(frames[0].x_t, COUNT);
      this.back.paint(frames.at(-1).x_t, COUNT);
    }
    this.noised.name([variable("x", "t"), ` at t = ${STRENGTHS[this.at]}`]);
    this.clock.show(this.at, LAST);
    this.curve.redraw();
    this.tell();
  }

  tell() {
    const { kept, original } = this;
    this.story.textContent = "";
    if (kept.length < STRENGTHS.length) return;
    const [lost] = kept.find(([, share]) => share < 0.5) ?? [];
    this.story.textContent =
      lost === undefined
        ? `It stays a “${original.name}” even from t = ${STRENGTHS[LAST]}.`
        : `It stops being a “${original.name}” at t = ${STRENGTHS[lost]}, where less than half of that is left.`;
  }

  update({ strength: tenths }, { request, name }) {
    this.at = tenths - 1;
    this.back.name([`brought back from there by ${request.model}, four times`]);
    const runs = STRENGTHS.map((strength) => ask("/v1/images/edits", { ...request, n: COUNT, strength }, name));
    if (runs.some((run, i) => run !== this.runs[i])) {
      this.leave();
      this.runs = runs;
      runs.forEach((run) => run.listeners.add(this.heard));
    }
    this.paint();
  }

  /** What the classifier sees in the drawing itself. */
  recognise(original) {
    this.original = original;
    if (this.runs.length) this.paint();
  }

  leave() {
    this.clock.stop();
    for (const run of this.runs) {
      run.listeners.delete(this.heard);
      run.stop();
    }
    Object.assign(this, { runs: [], original: null });
  }
}
