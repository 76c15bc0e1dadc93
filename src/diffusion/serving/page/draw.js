/** Draw: a digit of one's own, brought back from noise, finished by the model, or blended with one of its digits. */

import { whole, word } from "./address.js";
import { Blend } from "./blend.js";
import { choice, seed } from "./controls.js";
import { drawing } from "./digits.js";
import { h, later, variable } from "./dom.js";
import { Fill } from "./fill.js";
import { layout } from "./layout.js";
import { HALVES, half, mask, overlay } from "./mask.js";
import { pad } from "./pad.js";
import { panel } from "./panel.js";
import { Reply, ask, sampled, streamed } from "./run.js";
import { seen } from "./seen.js";
import { status } from "./status.js";
import { digit, read, trace, write } from "./strokes.js";
import { Vary } from "./vary.js";

const DIGITS = [..."0123456789"];
const PEN = 20; // pixels of the pad
const MODES = { vary: "Bring back", fill: "Fill in", blend: "Interpolate" };
// What is there before anybody has drawn: a four.
const UPRIGHT = "88,52 80,88 72,122 76,134 104,136 140,132 178,126";
const EXAMPLE = [UPRIGHT, "158,48 152,92 146,140 142,180 140,214"].map((points) =>
  points.split(" ").map((point) => point.split(",").map(Number)),
);

export const fields = {
  mode: word("vary", Object.keys(MODES)),
  source: word("drawn", ["drawn", ...DIGITS]), // one's own, or one of the model's digits
  strokes: word(write(EXAMPLE)),
  mask: word(""),
  label: word("none", ["none", ...DIGITS]),
  strength: whole(5, 1, 9), // tenths of t
  towards: word("8", DIGITS),
  seed: whole(0, 0, 999999),
  frame: whole(-1, -1, 1000),
};

const ABOUT = [
  "Draw a digit with the mouse or a finger. It is scaled and centred as the model’s training data is; the model " +
    "has never seen it.",
];

class Draw {
  constructor(change) {
    this.change = change;
    this.hear = this.hear.bind(this);
    this.arrived = this.arrived.bind(this);
    this.classified = this.classified.bind(this);
    this.status = status(() => this.update(this.values));
    this.begin = later(300, () => this.runs.forEach((run) => run.start()));
    this.modes = {
      vary: new Vary(change, this.hear),
      fill: new Fill(change, this.hear),
      blend: new Blend(change, this.hear),
    };
    this.controls = this.control();
    this.about = h("p");
    this.place = h("div", { class: "mode" });
    const { mode, ...others } = this.controls;
    this.element = layout({
      name: "draw",
      title: "Your own digit",
      about: ABOUT,
      first: [mode.element, this.about],
      stage: [this.status.element, this.desk(), this.place],
      settings: Object.values(others).map(({ element }) => element),
    });
  }

  control() {
    const { change } = this;
    const digits = DIGITS.map((i) => [i, i]);
    return {
      mode: choice({
        label: "What next",
        options: Object.entries(MODES),
        told: (mode) => change({ mode, frame: -1 }),
      }),
      source: choice({
        label: "Or take the model’s",
        options: digits,
        told: (source) => change({ source, frame: -1 }),
      }),
      label: choice({
        ...{ label: "The model aims at", options: [["none", "any"], ...digits] },
        told: (label) => change({ label, frame: -1 }),
      }),
      seed: seed({ told: (chosen) => change({ seed: chosen }) }),
    };
  }

  /** The pad with its buttons, and what becomes of the drawing. */
  desk() {
    this.pad = pad({
      label: "Pad: draw a digit with a mouse or a finger, or choose one of the model's below",
      drawn: (points) => this.drawn(points),
      paint: (canvas, points) => this.paint(canvas, points),
    });
    this.clean = panel({
      caption: ["as MNIST has it, ", variable("x", "0")],
      label: "The drawing, scaled and centred",
    });
    this.chances = seen();
    const button = (name, onclick) => h("button", { type: "button", onclick }, name);
    const halves = HALVES.map((name) => button(name, () => this.change({ mask: write(half(name)), frame: -1 })));
    this.regions = h("div", { class: "row", role: "group", "aria-label": "Mask a half" }, ...halves);
    const tools = [
      button("Undo", () => this.keep((strokes) => strokes.slice(0, -1))),
      button("Clear", () => this.keep(() => [])),
    ];
    this.caption = h("figcaption", { "data-caption": "" });
    const left = [this.caption, this.pad.element, h("div", { class: "row" }, ...tools), this.regions];
    return h(
      "div",
      { class: "desk" },
      h("figure", { class: "panel" }, ...left),
      this.clean.element,
      this.chances.element,
    );
  }

  get masking() {
    return this.values.mode === "fill";
  }

  /** The strokes of one's own drawing; none, if one of the model's digits is there instead. */
  get strokes() {
    return this.values.source === "drawn" ? read(this.values.strokes) : [];
  }

  /** What `edit` makes of the strokes of the mask, or of the drawing. */
  keep(edit) {
    if (this.masking) this.change({ mask: write(edit(read(this.values.mask))), frame: -1 });
    else this.change({ source: "drawn", strokes: write(edit(this.strokes)) });
  }

  drawn(points) {
    this.keep((strokes) => [...strokes, points]);
  }

  /** The pad: strokes as they are drawn, or the picture with the mask on it. */
  paint(canvas, points) {
    const context = canvas.getContext("2d");
    const side = canvas.width;
    const now = points.length ? [points] : [];
    context.imageSmoothingEnabled = false;
    context.fillRect(0, 0, side, side);
    const own = this.values.source === "drawn" || now.length;
    if (this.picture && (this.masking || !own)) context.drawImage(this.picture, 0, 0, side, side);
    if (this.masking) {
      const accent = getComputedStyle(canvas).getPropertyValue("--accent");
      overlay(context, mask([...read(this.values.mask), ...now]), side, accent);
    } else trace(context, [...this.strokes, ...now], ([x, y]) => [(x / 255) * side, (y / 255) * side], PEN, "#fff");
  }

  get runs() {
    return [this.digit, this.look, ...this.modes[this.values.mode].runs].filter(Boolean);
  }

  /** After something has come. */
  hear() {
    this.status.runs(this.runs, "");
    if (this.runs.some(({ state }) => state === "new")) this.begin();
  }

  async update(next) {
    if (next.mode !== this.values?.mode) {
      if (this.values) this.modes[this.values.mode].leave();
      this.place.replaceChildren(this.modes[next.mode].element);
    }
    this.values = next;
    for (const [name, control] of Object.entries(this.controls)) control.show(next[name]);
    this.about.textContent = this.modes[next.mode].about;
    this.caption.textContent = this.masking ? "brush over what is to be drawn anew" : "draw here";
    this.regions.hidden = !this.masking;
    this.controls.label.element.hidden = next.mode === "blend";
    const all = await this.status.models();
    if (!all || this.values !== next) return;
    const quick = drawing(all, true); // where a slider waits; filling in and the way to noise need the means of others
    this.model = next.mode === "vary" ? quick : drawing(all, false);
    const missing = "This server has no model of digits with labels: start it with the shipped ones.";
    if (!this.model) return this.status.show("refused", missing);
    this.turn(next.source === "drawn" ? null : sampled(quick.id, next.source, next.seed));
    await this.prepare();
  }

  /** Turns to one of the model's digits, or to none. */
  turn(run) {
    this.digit?.listeners.delete(this.arrived);
    this.digit = run;
    run?.listeners.add(this.arrived);
    run?.start();
  }

  arrived() {
    if (this.digit.state === "done") this.prepare();
    else this.hear();
  }

  /** The picture that all is about: a drawing at once, the model's digit when it has come. */
  async prepare() {
    const { strokes, values } = this;
    const come = this.digit?.state === "done" ? this.digit.frames.at(-1).x_t : null;
    this.picture = strokes.length ? digit(strokes) : come;
    this.pad.paint();
    this.place.hidden = !this.picture;
    if (this.picture) {
      this.clean.paint(this.picture, 1);
      const name = strokes.length ? values.strokes : `${values.source} ${values.seed}`;
      const given = await this.files(name);
      if (this.values === values) this.proceed(name, given);
      return;
    }
    this.clean.clear();
    this.chances.show(null);
    if (!this.digit) this.status.show("idle", "Draw a digit.");
  }

  /** The picture and the mask as files, made once. */
  async files(name) {
    const { mask: covered } = this.values;
    const key = `${name} ${covered}`;
    if (this.given?.key === key) return this.given;
    const hole = covered ? mask(read(covered)).convertToBlob() : null;
    const [image, made] = await Promise.all([this.picture.convertToBlob(), hole]);
    return (this.given = { key, image, hole: made });
  }

  /** Asks what the drawing is, and for what is to become of it. */
  proceed(name, given) {
    const { values, model } = this;
    const aim = values.label === "none" ? { label: "none" } : { label: Number(values.label), guidance_scale: 2 };
    const request = { model: model.id, prompt: "", image: given.image, seed: values.seed, ...aim, ...streamed };
    this.modes[values.mode].update(values, { request, name, model, hole: given.hole });
    this.look?.listeners.delete(this.classified);
    this.look = ask("/v1/images/classifications", { image: given.image, model: model.id }, name, Reply);
    this.look.listeners.add(this.classified);
    this.classified();
  }

  classified() {
    if (this.look.state === "done") {
      const { probabilities, labels } = this.look.reply;
      this.chances.show({ probabilities, labels });
      const best = probabilities.indexOf(Math.max(...probabilities));
      this.modes[this.values.mode].recognise({ best, name: labels[best] });
    }
    this.hear();
  }

  leave() {
    this.turn(null);
    this.look?.listeners.delete(this.classified);
    Object.values(this.modes).forEach((mode) => mode.leave());
  }
}

export const open = (change) => new Draw(change);
