/** Prompt: what a model that reads draws for sentences, always from the same noise. */

import { number, whole, word } from "./address.js";
import { SHOWN } from "./compare.js";
import { choice, list, seed, slider } from "./controls.js";
import { h, later } from "./dom.js";
import { layout } from "./layout.js";
import { ask, streamed } from "./run.js";
import { sentence } from "./sentence.js";
import { END, Strip } from "./strip.js";

const COUNTS = ["1", "4", "9"];
const SCALES = [0, 1, 2, 3, 4, 6];
const EACH = 3; // pictures of a guidance scale
const MOST = 7; // sentences of the gallery
const BETWEEN = "|"; // two of them in the address
const USUAL = -1; // the guidance scale that the model was saved with

const KINDS = {
  gallery: {
    name: "Gallery",
    about: "Your prompts, and some that the model was trained on. Choose one to go on from it.",
    columns: ({ prompt, kept }) => [...new Set([prompt, ...kept])].slice(0, MOST).map((each) => ({ prompt: each })),
  },
  guidance: {
    name: "Guidance",
    about:
      "Guidance moves each belief away from what the network says without the prompt, past what it says with it: " +
      "0 ignores the words, 1 follows them, more insists on them.",
    columns: ({ prompt }) => SCALES.map((scale) => ({ prompt, scale, caption: `scale ${scale}`, n: EACH })),
  },
  pair: {
    name: "Two prompts",
    about: "The same noise under two prompts: what stays the same comes from the noise, what changes from the words.",
    columns: ({ prompt, other }) => [prompt, other].map((each) => ({ prompt: each, caption: each || "no prompt" })),
  },
};

export const fields = {
  what: word("gallery", Object.keys(KINDS)),
  prompt: word(""), // "": the model's first example
  other: word(""), // of two prompts; "": its second
  negative: word(""),
  kept: word(""), // earlier prompts; "": its examples
  model: word(""), // "": the server's first that reads
  count: word("4", COUNTS),
  scale: number(USUAL, USUAL, 8),
  steps: whole(0, 0, 100), // 0: as the model usually takes
  seed: whole(0, 0, 999999),
  show: word("x_t", ["x_t", "x_0"]),
  place: whole(END, END, 1000), // in steps
};

const ABOUT = [
  "The network reads the prompt at every step: each place of the picture asks each word. All pictures beside each " +
    "other start from the same noise.",
];

/** What is asked of the server for a column. */
function request({ id, defaults }, { negative, count, steps, seed: chosen, ...values }, column) {
  const scale = column.scale ?? values.scale;
  return {
    ...{ model: id, prompt: column.prompt, n: column.n ?? Number(count), seed: chosen, guidance_scale: scale },
    ...{ sampler: defaults.sampler, steps: steps || defaults.steps },
    ...(negative && scale !== 0 && scale !== 1 ? { negative_prompt: negative } : {}), // elsewhere it does nothing
    ...{ ...streamed, probabilities: false },
  };
}

class Prompt {
  constructor(change) {
    this.change = change;
    this.about = h("p");
    this.strip = new Strip({
      told: (place) => change({ place }),
      retry: () => this.update(this.values),
      text: (place, steps, t) => `step ${place} of ${steps}, t = ${t.toFixed(2)}`,
      across: (count) => (this.values.what === "guidance" ? 1 : Math.sqrt(count)),
      label: "Step",
    });
    this.begin = later(250, () => this.strip.start());
    this.vocabulary = h("div", { class: "words" });
    this.summary = h("summary");
    this.known = h("details", {}, this.summary, this.vocabulary);
    this.controls = this.control();
    const { prompt, what, other, negative, ...others } = this.controls;
    this.element = layout({
      name: "prompt",
      title: "From words to pictures",
      about: ABOUT,
      first: [prompt.element, this.known, what.element, this.about, other.element, negative.element],
      stage: this.strip.parts,
      settings: Object.values(others).map(({ element }) => element),
    });
  }

  control() {
    const { change } = this;
    const kinds = Object.entries(KINDS).map(([key, { name }]) => [key, name]);
    const anew = { prompt: "", other: "", negative: "", kept: "", scale: USUAL, steps: 0, place: END };
    return {
      prompt: sentence({ label: "Prompt", told: (prompt) => this.keep(prompt) }),
      what: choice({ label: "Show", options: kinds, told: (what) => change({ what, place: END }) }),
      other: sentence({ label: "The other prompt", told: (other) => change({ other }) }),
      negative: sentence({
        ...{ label: "Negative prompt", hint: "what to keep away from" },
        told: (negative) => change({ negative }),
      }),
      count: choice({ label: "Pictures", options: COUNTS.map((n) => [n, n]), told: (count) => change({ count }) }),
      scale: slider({
        ...{ label: "Guidance scale", low: 0, high: 8, step: 0.5, hint: "1 follows the prompt" },
        told: (scale) => change({ scale }),
      }),
      steps: slider({ label: "Steps", low: 1, high: 100, told: (steps) => change({ steps, place: END }) }),
      show: choice({ label: "On the way", options: SHOWN, told: (show) => change({ show }) }),
      seed: seed({ told: (chosen) => change({ seed: chosen }) }),
      model: list({ label: "Model", told: (model) => change({ ...anew, model }) }),
    };
  }

  /** Draws a prompt, and keeps the one before. */
  keep(prompt) {
    const { prompt: before, kept } = this.shown;
    const others = new Set([before, ...kept].filter((each) => each && each !== prompt));
    this.change({ prompt, kept: [...others].slice(0, MOST).join(BETWEEN) });
  }

  /** The values as they are meant, of a model. */
  meant(next, { examples, defaults }) {
    const { prompt, other, kept, scale, steps } = next;
    return {
      ...{ ...next, prompt: prompt || (examples[0] ?? ""), other: other || (examples[1] ?? "") },
      kept: (kept ? kept.split(BETWEEN) : examples).slice(0, MOST),
      scale: scale === USUAL ? defaults.guidance_scale : scale,
      steps: steps || defaults.steps,
    };
  }

  async update(next) {
    this.values = next;
    const { status } = this.strip;
    const all = (await status.models())?.filter(({ prompts }) => prompts);
    if (!all || this.values !== next) return;
    const model = all.find(({ id }) => id === next.model) ?? all[0];
    if (!model) return status.show("refused", "This server has no model that reads: start it with one, by --weights.");
    this.shown = this.meant(next, model);
    this.offer(all, model);
    const columns = KINDS[next.what].columns(this.shown).map((column) => {
      const asked = request(model, this.shown, column);
      const run = ask("/v1/images/generations", asked);
      return { name: column.prompt, caption: this.title(column), calls: asked.steps, request: asked, run };
    });
    this.strip.element.className = next.what === "gallery" ? "gallery" : "strip";
    this.strip.take(columns, next);
    if (!this.strip.ended) this.begin();
  }

  /** What stands at a column: in the gallery, a button that goes on from it. */
  title({ prompt, caption }) {
    if (caption) return caption;
    return h("button", { type: "button", class: "link", onclick: () => this.keep(prompt) }, prompt || "no prompt");
  }

  offer(all, { id, words }) {
    const { prompt, other, negative, model, scale, count } = this.controls;
    const { what } = this.values;
    for (const each of [prompt, other, negative]) each.knows(words);
    model.offer(all.map((each) => [each.id, each.id]));
    for (const [name, control] of Object.entries(this.controls)) control.show(this.shown[name]);
    model.show(id);
    other.element.hidden = what !== "pair";
    scale.element.hidden = count.element.hidden = what === "guidance";
    this.about.textContent = KINDS[what].about;
    this.list(words);
  }

  /** The words that the model knows, to be chosen from. */
  list(words) {
    if (this.listed === words) return;
    this.listed = words;
    this.known.hidden = !words.length;
    this.summary.textContent = `The ${words.length} words that it knows`;
    const add = (each) => () => this.controls.prompt.add(each);
    this.vocabulary.replaceChildren(...words.map((each) => h("button", { type: "button", onclick: add(each) }, each)));
  }

  leave() {
    this.strip.leave();
  }
}

export const open = (change) => new Prompt(change);
