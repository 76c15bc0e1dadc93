/** Compare: some runs from the same noise that differ in one thing, on one scrubber. */

import { whole, word } from "./address.js";
import { choice, list, seed, slider } from "./controls.js";
import { DIFFERENCES, families } from "./differences.js";
import { h, later, variable } from "./dom.js";
import { follower } from "./follow.js";
import { layout } from "./layout.js";
import { panel } from "./panel.js";
import { ask, streamed } from "./run.js";
import { status } from "./status.js";
import { timeline } from "./timeline.js";

const DIGITS = [..."0123456789"];
const END = -1; // the place that is always the last
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
const SHOWN = [
  ["x_t", [variable("x", "t"), ", held"]],
  ["x_0", [variable("x̂", "0"), ", believed"]],
];

/** What is asked of the server for a column. */
const complete = ({ request }, { seed: chosen }, all) => ({
  ...{ prompt: "", ...request, n: COUNT, seed: chosen },
  ...{ ...streamed, probabilities: all.find(({ id }) => id === request.model).classifier },
});

/** Network calls a step, of all steps but Heun's last. */
const each = ({ run, calls }) => Math.ceil(calls / (run.steps ?? calls));

/** The last frame of a column that it has reached after so many network calls. */
const frame = (column, place) =>
  column.run.frames.findLast((_, k) => (k === column.run.steps ? column.calls : k * each(column)) <= place);

class Compare {
  constructor(change) {
    Object.assign(this, { change, columns: [], follow: follower((place) => this.show(place)) });
    this.hear = this.hear.bind(this);
    this.strip = h("div", { class: "strip" });
    this.about = h("p");
    this.status = status(() => this.update(this.values));
    this.begin = later(250, () => this.runs.forEach((run) => run.start()));
    const told = (place) => change({ place: place === this.calls ? END : place });
    this.clock = timeline({ label: "Network calls", told, text: (place) => this.read(place) });
    this.controls = this.control();
    const { what, calls, label, ...others } = this.controls;
    this.element = layout({
      name: "compare",
      title: "Same noise, one difference",
      about: ABOUT,
      first: [what.element, this.about, calls.element, label.element],
      stage: [this.status.element, this.strip, this.clock.element],
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

  get runs() {
    return this.columns.map(({ run }) => run);
  }

  /** Network calls that each column takes. */
  get calls() {
    return this.columns[0]?.calls ?? 0;
  }

  get ended() {
    return this.runs.every(({ state }) => state === "done");
  }

  /** How many network calls all columns have got to; -1 before the first frames. */
  get reached() {
    const got = (column) => (column.run.state === "done" ? column.calls : column.run.last * each(column));
    return Math.min(...this.columns.map(got));
  }

  read(place) {
    const shown = this.columns.length && frame(this.columns[0], place);
    return shown ? `after ${place} of ${this.calls} network calls, t = ${shown.t.toFixed(2)}` : "";
  }

  show(place) {
    this.element.classList.toggle("stale", this.reached < 0);
    this.clock.show(Math.max(place, 0), this.calls);
    for (const column of this.columns) {
      const shown = frame(column, place);
      if (shown) this.paint(column, shown);
    }
  }

  paint({ panel, request: { label } }, shown) {
    panel.paint(shown[this.values.show], COUNT);
    const known = Number.isInteger(label) && shown.probabilities;
    const mean = known ? shown.probabilities.reduce((sum, each) => sum + each[label] / COUNT, 0) : null;
    panel.note(known ? `p(${label}) ${mean.toFixed(2)}` : "");
  }

  /** After something has come. */
  hear() {
    const { label, place, what } = this.values;
    const meant = `p(${label}): the mean probability that a classifier gives the label.`;
    this.status.runs(this.runs, NEEDS.label.includes(what) ? meant : "");
    if (place === END) this.follow.chase(this.reached, this.ended);
    else this.show(Math.min(place, this.reached));
  }

  async update(next) {
    this.values = next;
    this.about.textContent = DIFFERENCES[next.what].about;
    const all = await this.status.models();
    if (!all || this.values !== next) return;
    this.offer([...families(all).keys()]);
    const columns = DIFFERENCES[next.what].columns(next, all);
    for (const column of columns) column.run = ask("/v1/images/generations", complete(column, next, all));
    this.take(columns.length > 1 ? columns : []);
    const missing = "This server has not the models to show that: start it with the shipped ones.";
    if (!this.columns.length) return this.status.show("refused", missing);
    if (!this.ended) this.begin();
    this.show(next.place === END ? this.follow.shown : Math.min(next.place, this.reached));
    this.hear();
  }

  offer(kept) {
    const { family, what } = this.values;
    this.controls.family.offer(kept.map((each) => [each, each]));
    for (const [name, control] of Object.entries(this.controls)) control.show(this.values[name]);
    this.controls.family.show(kept.includes(family) ? family : kept[0]);
    for (const [name, kinds] of Object.entries(NEEDS)) this.controls[name].element.hidden = !kinds.includes(what);
  }

  /** Turns to other columns, unless they are the same; what is finished is shown from its end. */
  take(columns) {
    if (columns.length !== this.columns.length || columns.some(({ run }, i) => run !== this.runs[i])) {
      this.leave();
      this.columns = columns;
      this.strip.replaceChildren(...columns.map((column) => this.column(column)));
    }
    if (columns.length && this.ended && this.values.place === END) this.follow.reset(this.calls);
  }

  column(column) {
    column.panel = panel({ caption: column.caption, columns: () => 1, label: `Pictures, ${column.caption}` });
    column.run.listeners.add(this.hear);
    return column.panel.element;
  }

  leave() {
    this.clock.stop();
    this.follow.reset();
    for (const run of this.runs) {
      run.listeners.delete(this.hear);
      run.stop();
    }
  }
}

export const open = (change) => new Compare(change);
