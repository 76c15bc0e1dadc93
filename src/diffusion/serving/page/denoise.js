/** Denoise: what the sampler holds, beside what the network believes, over a timeline. */

import { number, whole, word } from "./address.js";
import { choice, list, seed, slider } from "./controls.js";
import { h, later, variable } from "./dom.js";
import { follower } from "./follow.js";
import { layout } from "./layout.js";
import { panel } from "./panel.js";
import { ask, streamed } from "./run.js";
import { sentence } from "./sentence.js";
import { status } from "./status.js";
import { timeline } from "./timeline.js";
import { decided, trace } from "./trace.js";

const COUNTS = ["1", "4", "9", "16"];
const LABELS = ["none", ..."0123456789"];
const END = -1; // the frame that is always the last
const NARROW = 44; // pixels beside the charts, for a digit
const WIDE = 92; // for a word

export const fields = {
  model: word(""), // "": the server's first
  label: word("none", LABELS),
  prompt: word(""), // for models that read sentences
  count: word("9", COUNTS),
  steps: whole(0, 0, 100), // 0: as the model usually takes
  sampler: word(""), // "": as usual
  scale: number(2, 0, 4),
  seed: whole(0, 0, 999999),
  sample: whole(2, 1, 16), // which of the pictures is looked at
  frame: whole(END, END, 1000),
};

const ABOUT = [
  [
    ...["A sampler starts from pure noise (a cold model from averages), ", variable("x", "t"), " at "],
    ...[h("var", {}, "t"), "\u00a0=\u00a01. "],
    "At each step the network says what clean picture it believes is behind it, ",
    ...[variable("x̂", "0"), ", and the sampler moves a little towards that."],
  ],
  ["Early beliefs are blurred means of everything possible. Move the time: when is it decided what it will be?"],
];

/** Whether there is a label or a sentence to follow. */
const follows = ({ labels, prompts }, { label, prompt }) =>
  prompts ? prompt !== "" : labels.length > 0 && label !== "none";

/** What is asked of the server. */
function request(model, values) {
  const { id, labels, prompts, classifier, defaults } = model;
  const { label, prompt, count, steps, sampler, scale, seed: chosen } = values;
  return {
    ...{ model: id, prompt: prompts ? prompt : "", n: Number(count), seed: chosen },
    ...{ sampler: sampler || defaults.sampler, steps: steps || defaults.steps },
    ...(labels.length ? { label: label === "none" ? label : Number(label) } : {}),
    ...(follows(model, values) ? { guidance_scale: scale } : {}),
    ...{ ...streamed, probabilities: classifier },
  };
}

class Denoise {
  constructor(change) {
    Object.assign(this, { change, run: null, model: null, follow: follower((frame) => this.show(frame)) });
    this.hear = this.hear.bind(this);
    this.held = panel({ caption: ["What the sampler holds, ", variable("x", "t")], label: "Noisy pictures" });
    this.believed = panel({
      caption: ["What the network believes, ", variable("x̂", "0")],
      label: "Estimated pictures",
    });
    this.marks = Array.from({ length: 16 }, (_, i) => this.mark(i));
    this.believed.under.append(...this.marks);
    this.status = status(() => this.update(this.values));
    this.begin = later(250, () => this.run?.start());
    this.clock = timeline({ label: "Step", told: (frame) => this.stop(frame), text: (frame) => this.read(frame) });
    this.chances = trace((frame) => this.clock.move(frame));
    this.story = h("p", { class: "story" });
    this.controls = this.control();
    const { label, prompt, ...others } = this.controls;
    const pair = h("div", { class: "pair" }, this.held.element, this.believed.element);
    this.element = layout({
      name: "denoise",
      title: "From noise to a picture",
      about: ABOUT,
      first: [label.element, prompt.element],
      stage: [this.status.element, pair, this.clock.element, this.chances.element, this.story],
      settings: Object.values(others).map(({ element }) => element),
    });
  }

  control() {
    const { change } = this;
    const options = LABELS.map((label) => [label, label === "none" ? "any" : label]);
    return {
      label: choice({ label: "Draw a", options, told: (label) => change({ label }) }),
      prompt: sentence({ label: "Draw", told: (prompt) => change({ prompt }), hint: "in words" }),
      count: choice({ label: "Pictures", options: COUNTS.map((n) => [n, n]), told: (count) => change({ count }) }),
      steps: slider({ label: "Steps", low: 1, high: 100, told: (steps) => change({ steps, frame: END }) }),
      sampler: list({ label: "Sampler", told: (sampler) => change({ sampler, frame: END }) }),
      scale: slider({
        ...{ label: "Guidance scale", low: 0, high: 4, step: 0.5, hint: "1 follows what is asked for" },
        told: (scale) => change({ scale }),
      }),
      seed: seed({ told: (chosen) => change({ seed: chosen }) }),
      model: list({ label: "Model", told: (model) => change({ model, sampler: "", steps: 0, frame: END }) }),
    };
  }

  /** The button that lies on a picture. */
  mark(i) {
    const told = () => this.change({ sample: i + 1 });
    return h(
      "label",
      {},
      h("input", { type: "radio", name: "sample", value: i + 1, "aria-label": `Picture ${i + 1}`, onchange: told }),
    );
  }

  /** Which picture is looked at. */
  get sample() {
    return Math.min(this.values.sample, this.values.count) - 1;
  }

  name(label) {
    return this.model.labels[label] ?? String(label);
  }

  /** Scrubbed to a frame: at the end of what is finished, that of every later run, too. */
  stop(frame) {
    this.change({ frame: frame === this.run?.last && this.run.state === "done" ? END : frame });
  }

  /** A frame in words. */
  read(frame) {
    const { t, probabilities } = this.run?.frames[frame] ?? {};
    if (t === undefined) return "";
    const when = `step ${frame} of ${this.run.steps}, t = ${t.toFixed(2)}`;
    if (!probabilities) return when;
    const chance = Math.max(...probabilities[this.sample]);
    const best = this.name(probabilities[this.sample].indexOf(chance));
    return `${when}, looks like ${best} (${Math.round(100 * chance)} %)`;
  }

  show(frame) {
    const { run, sample } = this;
    const shown = run.frames[frame];
    this.element.classList.toggle("stale", !shown);
    this.clock.show(Math.max(frame, 0), run.steps ?? 0);
    if (!shown) return;
    this.paint(shown);
    const labels = shown.probabilities ? shown.probabilities[0].map((_, i) => this.name(i)) : [];
    const start = labels.some(({ length }) => length > 2) ? WIDE : NARROW;
    this.element.style.setProperty("--left", `${start}px`);
    this.chances.show({ frames: run.frames, most: run.steps, frame, sample, labels, start });
    this.tell(labels);
  }

  paint({ x_t, x_0 }) {
    const count = Number(this.values.count);
    this.held.paint(x_t, count);
    this.believed.paint(x_0, count);
    this.believed.under.style.setProperty("--across", Math.ceil(Math.sqrt(count)));
    this.marks.forEach((each, i) => {
      each.hidden = i >= count || count === 1;
      each.firstChild.checked = i === this.sample;
    });
  }

  /** When it was decided what the picture would be. */
  tell(labels) {
    this.story.textContent = "";
    if (this.run.state !== "done" || !labels.length) return;
    const { label, frame } = decided(this.run.frames, this.sample);
    const which = this.values.count === "1" ? "The picture" : `Picture ${this.sample + 1}`;
    const moment = `from step ${frame} of ${this.run.steps} on (t = ${this.run.frames[frame].t.toFixed(2)})`;
    this.story.textContent = `${which}: ${moment}, the classifier sees “${labels[label]}”.`;
  }

  /** After something has come. */
  hear() {
    const { run, values } = this;
    this.status.runs([run], `${run.nfe} network calls a picture.`);
    if (values.frame === END) this.follow.chase(run.last, run.state === "done");
    else this.show(Math.min(values.frame, run.last));
  }

  offer(all) {
    const { label, prompt, scale, model, sampler } = this.controls;
    const { labels, prompts, samplers, words } = this.model;
    model.offer(all.map(({ id }) => [id, id]));
    sampler.offer(samplers.map((each) => [each, each]));
    prompt.knows(words);
    label.element.hidden = !labels.length;
    prompt.element.hidden = !prompts;
    scale.element.hidden = !follows(this.model, this.values);
    if (labels.length === LABELS.length - 1) label.rename(["any", ...labels]);
  }

  async update(next) {
    this.values = next;
    const all = await this.status.models();
    if (!all || this.values !== next) return;
    this.model = all.find(({ id }) => id === next.model) ?? all[0];
    const asked = request(this.model, next);
    this.offer(all);
    const shown = { ...next, steps: asked.steps, sampler: asked.sampler, model: asked.model };
    for (const [name, control] of Object.entries(this.controls)) control.show(shown[name]);
    this.take(ask("/v1/images/generations", asked));
    if (this.run.state !== "done") this.begin();
    this.show(next.frame === END ? this.follow.shown : Math.min(next.frame, this.run.last));
    this.hear();
  }

  /** Turns to a run; what is finished is shown from its end. */
  take(run) {
    if (run !== this.run) {
      this.leave();
      this.run = run;
      run.listeners.add(this.hear);
    }
    if (run.state === "done" && this.values.frame === END) this.follow.reset(run.last);
  }

  leave() {
    this.clock.stop();
    this.follow.reset();
    this.run?.listeners.delete(this.hear);
    this.run?.stop();
  }
}

export const open = (change) => new Denoise(change);
