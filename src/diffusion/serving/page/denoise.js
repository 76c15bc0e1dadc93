/** Denoise: what the sampler holds, beside what the network believes, over a timeline. */

import { number, whole, word } from "./address.js";
import { choice, list, seed, slider } from "./controls.js";
import { h, later, variable } from "./dom.js";
import { follower } from "./follow.js";
import { layout } from "./layout.js";
import { panel } from "./panel.js";
import { ask } from "./run.js";
import { status } from "./status.js";
import { timeline } from "./timeline.js";
import { decided, trace } from "./trace.js";

const COUNTS = ["1", "4", "9", "16"];
const END = -1; // the frame that is always the last

export const fields = {
  model: word(""), // "": the server's first
  label: word("none", ["none", ..."0123456789"]),
  count: word("9", COUNTS),
  steps: whole(0, 0, 100), // 0: as the model usually takes
  sampler: word(""), // "": as usual
  scale: number(2, 0, 4),
  seed: whole(0, 0, 999999),
  sample: whole(2, 1, 16),
  frame: whole(END, END, 1000),
};

/** What is asked of the server. */
function request({ id: model, labels, classifier }, { label, count, steps, sampler, scale, seed: chosen }, usual) {
  const unconditional = labels.length ? { label: "none" } : {};
  return {
    model,
    prompt: "",
    n: Number(count),
    seed: chosen,
    ...(labels.length && label !== "none" ? { label: Number(label), guidance_scale: scale } : unconditional),
    sampler: sampler || usual.sampler,
    steps: steps || usual.steps,
    stream: true,
    sprite: true,
    estimates: true,
    probabilities: classifier,
  };
}

/** The model of a name, or the first there is. */
export const find = (all, name) => all.find(({ id }) => id === name) ?? all[0];

export function open(change) {
  let [values, all, run] = [fields, null, null];
  const held = panel({ caption: ["What the sampler holds, ", variable("x", "t")], label: "Noisy pictures" });
  const believed = panel({
    caption: ["What the network believes, ", variable("x̂", "0")],
    label: "Estimated pictures",
  });
  const follow = follower((frame) => show(frame));
  const state = status(() => update(values));
  const begin = later(250, () => run?.start());
  const story = h("p", { class: "story" });
  const stop = (frame) => change({ frame: frame === run?.last && run.state === "done" ? END : frame });
  const clock = timeline({ label: "Step", told: stop, text: (frame) => read(frame) });
  const chances = trace((frame) => clock.move(frame));
  const marks = Array.from({ length: 16 }, (_, i) => mark(i));
  believed.under.append(...marks);

  const controls = {
    label: choice({
      label: "Draw a",
      options: [["none", "any"], ...[..."0123456789"].map((i) => [i, i])],
      told: (label) => change({ label }),
    }),
    count: choice({
      label: "Pictures",
      options: COUNTS.map((count) => [count, count]),
      told: (count) => change({ count, sample: Math.min(values.sample, count) }),
    }),
    steps: slider({ label: "Steps", low: 1, high: 100, told: (steps) => change({ steps, frame: END }) }),
    sampler: list({ label: "Sampler", told: (sampler) => change({ sampler, frame: END }) }),
    scale: slider({
      label: "Guidance scale",
      low: 0,
      high: 4,
      step: 0.5,
      told: (scale) => change({ scale }),
      hint: "1 follows the label",
    }),
    seed: seed({ told: (chosen) => change({ seed: chosen }) }),
    model: list({ label: "Model", told: (model) => change({ model, sampler: "", steps: 0, frame: END }) }),
  };
  const { label: first, ...others } = controls;
  const element = layout({
    name: "denoise",
    title: "From noise to a picture",
    about: [
      [
        "A sampler starts from pure noise, ",
        variable("x", "t"),
        " at ",
        h("var", {}, "t"),
        " = 1. At each step the network says what clean picture it believes is behind it, ",
        variable("x̂", "0"),
        ", and the sampler moves a little towards that.",
      ],
      "Early beliefs are blurred means of everything possible. Move the time: when is it decided what the " +
        "picture will be?",
    ],
    first: [first.element],
    stage: [
      state.element,
      h("div", { class: "pair" }, held.element, believed.element),
      clock.element,
      chances.element,
      story,
    ],
    settings: Object.values(others).map((control) => control.element),
  });

  function mark(i) {
    const radio = h("input", {
      type: "radio",
      name: "sample",
      value: i + 1,
      "aria-label": `Picture ${i + 1}`,
      onchange: () => change({ sample: i + 1 }),
    });
    return h("label", {}, radio);
  }

  function read(frame) {
    const { t, probabilities } = run?.frames[frame] ?? {};
    if (t === undefined) return "";
    const chance = probabilities?.[sample()];
    const best = chance
      ? `, looks like ${name(chance.indexOf(Math.max(...chance)))} (${Math.round(100 * Math.max(...chance))} %)`
      : "";
    return `step ${frame} of ${run.steps}, t = ${t.toFixed(2)}${best}`;
  }

  /** Which picture is looked at. */
  const sample = () => Math.min(values.sample, Number(values.count)) - 1;

  const name = (label) => find(all, values.model).labels[label] ?? String(label);

  function show(frame) {
    const shown = run.frames[frame];
    const count = Number(values.count);
    element.classList.toggle("stale", !shown);
    clock.show(Math.max(frame, 0), run.steps ?? 0);
    if (!shown) return;
    held.paint(shown.x_t, count);
    believed.paint(shown.x_0, count);
    const across = Math.ceil(Math.sqrt(count));
    believed.under.style.setProperty("--across", across);
    marks.forEach((each, i) => {
      each.hidden = i >= count || count === 1;
      each.firstChild.checked = i === sample();
    });
    const labels = shown.probabilities ? shown.probabilities[0].map((_, i) => name(i)) : [];
    const start = Math.max(...labels.map(({ length }) => length), 0) > 2 ? 92 : 44;
    element.style.setProperty("--left", `${start}px`);
    chances.show({ frames: run.frames, most: run.steps, frame, sample: sample(), labels, start });
    tell(labels);
  }

  function tell(labels) {
    if (run.state !== "done" || !labels.length) return (story.textContent = "");
    const { label, frame } = decided(run.frames, sample());
    const which = values.count === "1" ? "The picture" : `Picture ${sample() + 1}`;
    const moment = `from step ${frame} of ${run.steps} on (t = ${run.frames[frame].t.toFixed(2)})`;
    story.textContent = `${which}: ${moment}, the classifier sees “${labels[label]}”.`;
  }

  /** After something has come. */
  function hear() {
    state.runs([run], `${run.nfe} network calls a picture.`);
    if (values.frame === END) follow.chase(run.last, run.state === "done");
    else show(Math.min(values.frame, run.last));
  }

  function offer(model) {
    controls.model.offer(all.map(({ id }) => [id, id]));
    controls.sampler.offer(model.samplers.map((sampler) => [sampler, sampler]));
    controls.label.element.hidden = !model.labels.length;
    controls.scale.element.hidden = !model.labels.length || values.label === "none";
  }

  async function update(next) {
    values = next;
    all = await state.models();
    if (!all || values !== next) return;
    const model = find(all, values.model);
    offer(model);
    const asked = request(model, values, model.defaults);
    for (const [key, control] of Object.entries(controls)) control.show(values[key]);
    for (const [key, value] of [
      ["steps", asked.steps],
      ["sampler", asked.sampler],
      ["model", model.id],
    ])
      controls[key].show(value);
    const wanted = ask("/v1/images/generations", asked);
    if (wanted !== run) take(wanted);
    if (run.state === "done" && values.frame === END && follow.shown < run.last) follow.reset(run.last);
    if (run.state !== "done") begin();
    if (values.frame === END) show(follow.shown);
    else show(Math.min(values.frame, run.last));
    state.runs([run], `${run.nfe} network calls a picture.`);
  }

  function take(wanted) {
    leave();
    run = wanted;
    run.listeners.add(hear);
    follow.reset(run.state === "done" ? run.last : -1);
  }

  function leave() {
    clock.stop();
    follow.reset();
    run?.listeners.delete(hear);
    run?.stop();
  }
  return { element, update, leave };
}
