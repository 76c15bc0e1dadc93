/** Understand: one number instead of a picture, so that the whole distribution and its exact denoiser can be seen. */

import { whole, word } from "./address.js";
import { bottom, chart, draggable, left, line, scale, text } from "./chart.js";
import { choice, seed, slider } from "./controls.js";
import { RANGE, bars, grid, haze } from "./crowd.js";
import { h, svg, variable } from "./dom.js";
import { layout } from "./layout.js";
import { along, denoise, density, distance, path, schedule, spread } from "./mixture.js";
import { normal } from "./random.js";
import { timeline } from "./timeline.js";

const DATA = {
  two: [-1.6, 1.6].map((mean) => ({ weight: 0.5, mean, deviation: 0.25 })),
  three: [
    { weight: 0.25, mean: -2.2, deviation: 0.35 },
    { weight: 0.5, mean: -0.2, deviation: 0.15 },
    { weight: 0.25, mean: 1.8, deviation: 0.25 },
  ],
  one: [{ weight: 1, mean: 1, deviation: 0.4 }],
};
const BELL = [{ weight: 1, mean: 0, deviation: 1 }]; // what is left at t = 1
const [PATHS, SAMPLES, FRAMES] = [40, 400, 100]; // drawn, counted, and moments from t = 1 to 0
const LEFT = 44; // pixels beside the charts, for the numbers of their axes
const TICKS = [-4, -2, 0, 2, 4].map((value) => [value, String(value).replace("-", "−")]);

export const fields = {
  data: word("two", Object.keys(DATA)),
  sampler: word("ddim", ["ddim", "ddpm"]),
  steps: whole(30, 1, 100),
  seed: whole(0, 0, 999999),
  path: whole(8, 1, PATHS),
  time: whole(60, 0, FRAMES),
};

/** Paths to be drawn, from random noise; others to be counted, from noise without chance, and how far off they end. */
function sample({ data, sampler, steps, seed: chosen }) {
  const parts = DATA[data];
  const eta = sampler === "ddpm" ? 1 : 0;
  const run = (x, i) => path(parts, x, steps, eta, (k) => normal(chosen, i, k));
  const paths = Array.from({ length: PATHS }, (_, i) => run(normal(chosen, i, -1), i));
  const counted = spread(BELL, SAMPLES).map((x, i) => run(x, PATHS + i));
  return {
    parts,
    paths,
    counted,
    off: distance(
      parts,
      counted.map((states) => states.at(-1)),
    ),
  };
}

export function open(change) {
  let [values, key, drawn, backdrop] = [null, "", null, null];
  const t = () => 1 - values.time / FRAMES;
  const now = (paths) => paths.map((states) => along(states, t()));
  const most = () => Math.max(...grid(400).map((x) => density(drawn.parts, x, 0)));

  const flow = chart({
    label: "Paths of samples from noise at the left to data at the right, over the density at every time",
    draw(width) {
      const [top, base] = [26, 330];
      const aside = Math.min(170, width * 0.24);
      const split = width - aside - 18;
      const x = scale([1, 0], [LEFT, split]);
      const y = scale(RANGE, [base, top]);
      const thin = scale([0, most()], [split + 18, width - 2]);
      flow.element.parentElement.style.setProperty("--right", `${aside + 18}px`);
      flow.at = (pixel) => Math.round(Math.min(Math.max(1 - x.invert(pixel), 0), 1) * FRAMES);
      if (backdrop?.key !== key || backdrop.width !== width) {
        const route = (states) => line(states.map((value, k) => [x(1 - k / (states.length - 1)), y(value)]));
        const paths = drawn.paths.map((states) => svg("path", { class: "route", d: route(states) }));
        backdrop = { key, width, parts: [...haze(drawn.parts, x, y, most()), ...paths], route };
      }
      const followed = drawn.paths[values.path - 1];
      const dots = now(drawn.paths).map((value) => svg("circle", { class: "dot", cx: x(t()), cy: y(value), r: 2.5 }));
      const curve = line(grid(200).map((value) => [thin(density(drawn.parts, value, t())), y(value)]));
      const parts = [
        ...backdrop.parts,
        svg("path", { class: "route followed", d: backdrop.route(followed) }),
        svg("line", { class: "cursor", x1: x(t()), x2: x(t()), y1: top, y2: base }),
        ...dots,
        svg("circle", { class: "dot followed", cx: x(t()), cy: y(along(followed, t())), r: 5 }),
        ...bars(now(drawn.counted), thin, y),
        svg("path", { class: "curve", d: curve }),
        svg("line", { class: "tick", x1: thin(0), x2: thin(0), y1: top, y2: base }),
        text(width - 2, 12, `density at t = ${t().toFixed(2)}`, "end", { class: "axis" }),
        ...left(y, LEFT, TICKS, "x", 12),
        ...bottom(
          x,
          base,
          [
            [1, "1"],
            [0.75, "0.75"],
            [0.5, "0.5"],
            [0.25, "0.25"],
            [0, "0"],
          ],
          "time t: 1 is noise, 0 is data",
          (LEFT + split) / 2,
        ),
      ];
      return { height: base + 38, parts };
    },
  });
  draggable(flow.picture, (pixel) => clock.move(flow.at(pixel)));

  const answer = chart({
    label: "What the denoiser answers for every x at this time",
    draw(width) {
      const [top, base] = [26, 240];
      const x = scale(RANGE, [LEFT, width - 8]);
      const y = scale(RANGE, [base, top]);
      const curve = line(grid(300).map((value) => [x(value), y(denoise(drawn.parts, value, t()))]));
      const dot = (value, name, r) =>
        svg("circle", { class: name, cx: x(value), cy: y(denoise(drawn.parts, value, t())), r });
      const parts = [
        svg("path", {
          class: "guide",
          d: line([
            [x(-4), y(-4)],
            [x(4), y(4)],
          ]),
        }),
        svg("path", { class: "curve", d: curve }),
        ...now(drawn.paths).map((value) => dot(value, "dot", 2.5)),
        dot(along(drawn.paths[values.path - 1], t()), "dot followed", 5),
        ...left(y, LEFT, TICKS, "its answer, the mean of x₀", 12),
        ...bottom(x, base, TICKS, `what it is given, x at t = ${t().toFixed(2)}`, (LEFT + width) / 2),
      ];
      return { height: base + 38, parts };
    },
  });

  const facts = h("dl", { class: "facts" });
  const meant = `Off by: the Wasserstein distance between the data and the ends of ${SAMPLES} evenly spread paths.`;
  const clock = timeline({
    label: "Time",
    told: (time) => change({ time }),
    text: (frame) => `t = ${(1 - frame / FRAMES).toFixed(2)}`,
  });
  const controls = {
    data: choice({
      label: "Data",
      options: [
        ["two", "Two"],
        ["three", "Three"],
        ["one", "One"],
      ],
      told: (data) => change({ data }),
      hint: "how many clusters",
    }),
    sampler: choice({
      label: "Sampler",
      options: [
        ["ddim", "DDIM"],
        ["ddpm", "DDPM"],
      ],
      told: (sampler) => change({ sampler }),
      hint: "without or with fresh noise",
    }),
    steps: slider({
      label: "Steps",
      low: 1,
      high: 100,
      told: (steps) => change({ steps }),
      hint: "fewer are faster and less exact",
    }),
    path: slider({ label: "Followed path", low: 1, high: PATHS, told: (chosen) => change({ path: chosen }) }),
    seed: seed({ told: (chosen) => change({ seed: chosen }) }),
  };
  const element = layout({
    name: "understand",
    title: "A bell becomes the data",
    about: [
      "Take one number for a picture. Noise turns all data into the same bell curve; sampling goes back, from " +
        "left to right.",
      [
        "All it needs is a denoiser: given ",
        variable("x", "t"),
        ", the mean of every ",
        variable("x", "0"),
        " it may have come from. Here it is known exactly. Move the time and watch its answer change from one " +
          "mean for all to a choice.",
      ],
    ],
    stage: [
      h("div", { class: "inset" }, flow.element, clock.element),
      h("div", { class: "beside" }, answer.element, h("div", {}, facts, h("p", { class: "note" }, meant))),
    ],
    settings: Object.values(controls).map((control) => control.element),
  });

  function tell() {
    const followed = along(drawn.paths[values.path - 1], t());
    const { alpha, sigma } = schedule(t());
    const rows = [
      ["signal left, α", alpha.toFixed(2)],
      ["noise, σ", sigma.toFixed(2)],
      ["followed path, x", followed.toFixed(2)],
      ["its denoised mean", denoise(drawn.parts, followed, t()).toFixed(2)],
      [`${values.steps} steps end off by`, drawn.off.toFixed(3)],
    ];
    facts.replaceChildren(...rows.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
  }

  return {
    element,
    update(next) {
      values = next;
      const { time, path: chosen, ...rest } = values;
      if (JSON.stringify(rest) !== key) [key, drawn] = [JSON.stringify(rest), sample(values)];
      for (const [name, control] of Object.entries(controls)) control.show(values[name]);
      clock.show(time, FRAMES);
      flow.redraw();
      answer.redraw();
      tell();
    },
    leave: clock.stop,
  };
}
