/** Compare: some runs from the same noise that differ in one thing, on one scrubber. */

import { whole, word } from "./address.js";
import { choice, list, seed, slider } from "./controls.js";
import { DIFFERENCES, families } from "./differences.js";
import { h, later, variable } from "./dom.js";
import { layout } from "./layout.js";
import { ask, streamed } from "./run.js";
import { END, Strip } from "./strip.js";

const DIGITS = [..."0123456789"];
const COUNT = 3; // pictures a column
const NEEDS = { label: ["guidance", "samplers"], calls: ["samplers"], family: ["training"] }; // a control, and by what

export const fields = {
  what: word("guidance", Object.keys(DIFFERENCES)),
  label: word("3", DIGITS),
  calls: whole(4, 2, 25), // half of them, as Heun's last step takes one call and the others two
  family: word(""), // "": the first that was kept at several epochs
  seed: whole(0, 0, 999999),
  show: word("x_t", ["x_t", "x_0"]),
  place: whole(END, END, 1000), // in network calls
};

const ABOUT = [
  [
    ...["Every column starts from the same three draws of noise, ", variable("x", "1"), ", where there is noise. "],
    "What is different at the end comes from one thing alone.",
  ],
];
export const SHOWN = [
  ["x_t", [variable("x", "t"), ", held"]],
  ["x_0", [variable("x̂", "0"), ", believed"]],
];

/** What is asked of the server for a column. */
const complete = (request, { seed: chosen }, all) => ({
  ...{ prompt: "", ...request, n: COUNT, seed: chosen },
  ...{ ...streamed, probabilities: all.find(({ id }) => id === request.model).classifier },
});

/** The mean probability of the label of a column. */
function chance({ request: { label } }, { probabilities }) {
  if (!Number.isInteger(label) || !probabilities) return "";
  const mean = probabilities.reduce((sum, each) => sum + each[label] / COUNT, 0);
  return `p(${label}) ${mean.toFixed(2)}`;
}

class Compare {
  constructor(change) {
    this.change = change;
    this.about = h("p");
    this.strip = new Strip({
      told: (place) => change({ place }),
      retry: () => this.update(this.values),
      text: (place, calls, t) => `after ${place} of ${calls} network calls, t = ${t.toFixed(2)}`,
      note: chance,
    });
    this.begin = later(250, () => this.strip.start());
    this.controls = this.control();
    const { what, calls, label, ...others } = this.controls;
    this.element = layout({
      name: "compare",
      title: "Same noise, one difference",
      about: ABOUT,
      first: [what.element, this.about, calls.element, label.element],
      stage: this.strip.parts,
      settings: Object.values(others).map(({ element }) => element),
    });
  }

  control() {
    const { change } = this;
    const kinds = Object.entries(DIFFERENCES).map(([key, { name }]) => [key, name]);
    return {
      what: choice({ label: "What differs", options: kinds, told: (what) => change({ what, place: END }) }),
      calls: slider({
        ...{ label: "Network calls a picture", low: 2, high: 25, text: (half) => String(2 * half - 1) },
        told: (calls) => change({ calls, place: END }),
      }),
      label: choice({ label: "Draw a", options: DIGITS.map((i) => [i, i]), told: (label) => change({ label }) }),
      show: choice({ label: "Show", options: SHOWN, told: (show) => change({ show }) }),
      family: list({ label: "Model", told: (family) => change({ family, place: END }) }),
      seed: seed({ told: (chosen) => change({ seed: chosen }) }),
    };
  }

  async update(next) {
    this.values = next;
    const { what, label } = next;
    this.about.textContent = DIFFERENCES[what].about;
    const all = await this.strip.status.models();
    if (!all || this.values !== next) return;
    this.offer([...families(all).keys()]);
    const columns = DIFFERENCES[what].columns(next, all).map(({ request, ...others }) => {
      const asked = complete(request, next, all);
      return { ...others, request: asked, run: ask("/v1/images/generations", asked) };
    });
    const meant = `p(${label}): the mean probability that a classifier gives the label.`;
    this.strip.take(columns.length > 1 ? columns : [], next, NEEDS.label.includes(what) ? meant : "");
    const missing = "This server does not have the models for this view: start it with the shipped ones.";
    if (columns.length < 2) this.strip.status.show("refused", missing);
    else if (!this.strip.ended) this.begin();
  }

  offer(kept) {
    const { family, what } = this.values;
    this.controls.family.offer(kept.map((each) => [each, each]));
    for (const [name, control] of Object.entries(this.controls)) control.show(this.values[name]);
    this.controls.family.show(kept.includes(family) ? family : kept[0]);
    for (const [name, kinds] of Object.entries(NEEDS)) this.controls[name].element.hidden = !kinds.includes(what);
  }

  leave() {
    this.strip.leave();
  }
}

export const open = (change) => new Compare(change);
