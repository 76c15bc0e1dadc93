/** Understand: one number instead of a picture, so that the whole distribution and its exact denoiser can be seen. */

import { whole, word } from "./address.js";
import { answer } from "./answer.js";
import { choice, seed, slider } from "./controls.js";
import { signed } from "./crowd.js";
import { h, variable } from "./dom.js";
import { flow } from "./flow.js";
import { layout } from "./layout.js";
import { along, denoise, distance, path, schedule, spread } from "./mixture.js";
import { normal } from "./random.js";
import { timeline } from "./timeline.js";

const part = (weight, mean, deviation) => ({ weight, mean, deviation });
const DATA = {
  two: [part(0.5, -1.6, 0.25), part(0.5, 1.6, 0.25)],
  three: [part(0.25, -2.2, 0.35), part(0.5, -0.2, 0.15), part(0.25, 1.8, 0.25)],
  one: [part(1, 1, 0.4)],
};
const BELL = [part(1, 0, 1)]; // what is left at t = 1
const [PATHS, SAMPLES, FRAMES] = [40, 400, 100]; // drawn, counted, and moments from t = 1 to 0

export const fields = {
  data: word("two", Object.keys(DATA)),
  sampler: word("ddim", ["ddim", "ddpm"]),
  steps: whole(30, 1, 100),
  seed: whole(0, 0, 999999),
  path: whole(8, 1, PATHS),
  time: whole(60, 0, FRAMES),
};

const ABOUT = [
  [
    "Take one number for a picture. Noise turns all data into the same bell curve; sampling goes back, from left ",
    "to right.",
  ],
  [
    ...["All it needs is a denoiser: given ", variable("x", "t"), ", the mean of every ", variable("x", "0")],
    " it may have come from. Here it is known exactly. Move the time and watch its answer change from one mean for ",
    "all to a choice.",
  ],
];
const MEANT =
  `Off by: the Wasserstein distance between the data and the ends of ${SAMPLES} paths from evenly spread noise; ` +
  "with DDPM, chance is a part of it.";

/** Paths to be drawn, from random noise; others to be counted, from noise without chance, and how far off they end. */
function sample({ data, sampler, steps, seed: chosen }) {
  const parts = DATA[data];
  const eta = sampler === "ddpm" ? 1 : 0;
  const run = (x, i) => path(parts, x, steps, eta, (k) => normal(chosen, i, k));
  const paths = Array.from({ length: PATHS }, (_, i) => run(normal(chosen, i, -1), i));
  const counted = spread(BELL, SAMPLES).map((x, i) => run(x, PATHS + i));
  const ends = counted.map((states) => states.at(-1));
  return { parts, paths, counted, off: distance(parts, ends) };
}

class Understand {
  constructor(change) {
    this.flow = flow((t) => this.clock.move(Math.round((1 - t) * FRAMES)));
    this.answer = answer();
    this.facts = h("dl", { class: "facts" });
    const text = (frame) => `t = ${(1 - frame / FRAMES).toFixed(2)}`;
    this.clock = timeline({ label: "Time", told: (time) => change({ time }), text });
    this.controls = this.control(change);
    const told = h("div", {}, this.facts, h("p", { class: "note" }, MEANT));
    this.element = layout({
      name: "understand",
      title: "A bell becomes the data",
      about: ABOUT,
      stage: [
        h("div", { class: "inset" }, this.flow.element, this.clock.element),
        h("div", { class: "beside" }, this.answer.element, told),
      ],
      settings: Object.values(this.controls).map(({ element }) => element),
    });
  }

  control(change) {
    const words = (...pairs) => pairs.map((name) => [name.toLowerCase(), name]);
    return {
      data: choice({
        ...{ label: "Data", options: words("Two", "Three", "One"), hint: "how many clusters" },
        told: (data) => change({ data }),
      }),
      sampler: choice({
        ...{ label: "Sampler", options: words("DDIM", "DDPM"), hint: "without or with fresh noise" },
        told: (sampler) => change({ sampler }),
      }),
      steps: slider({
        ...{ label: "Steps", low: 1, high: 100, hint: "fewer are faster and less exact" },
        told: (steps) => change({ steps }),
      }),
      path: slider({ label: "Followed path", low: 1, high: PATHS, told: (followed) => change({ path: followed }) }),
      seed: seed({ told: (chosen) => change({ seed: chosen }) }),
    };
  }

  update(values) {
    const { time, path: followed, ...rest } = values;
    const key = JSON.stringify(rest);
    if (key !== this.key) Object.assign(this, { key, drawn: sample(values) });
    for (const [name, control] of Object.entries(this.controls)) control.show(values[name]);
    const state = { ...this.drawn, path: followed - 1, t: 1 - time / FRAMES };
    this.clock.show(time, FRAMES);
    this.flow.show(state);
    this.answer.show(state);
    this.tell(state, values.steps);
  }

  tell({ parts, paths, path: followed, t, off }, steps) {
    const x = along(paths[followed], t);
    const { alpha, sigma } = schedule(t);
    const rows = [
      ["signal left, α", signed(alpha)],
      ["noise, σ", signed(sigma)],
      ["followed path, x", signed(x)],
      ["its denoised mean", signed(denoise(parts, x, t))],
      [steps === 1 ? "1 step ends off by" : `${steps} steps end off by`, off.toFixed(3)],
    ];
    this.facts.replaceChildren(...rows.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
  }

  leave() {
    this.clock.stop();
  }
}

export const open = (change) => new Understand(change);
