/** Draw: a digit of one's own, brought back from noise, finished by the model, or blended with one of its digits. */

import { whole, word } from "./address.js";
import { blend } from "./blend.js";
import { choice, seed } from "./controls.js";
import { h, later, variable } from "./dom.js";
import { fill } from "./fill.js";
import { layout } from "./layout.js";
import { HALVES, half, mask, overlay } from "./mask.js";
import { pad } from "./pad.js";
import { panel } from "./panel.js";
import { ask, Reply } from "./run.js";
import { seen } from "./seen.js";
import { status } from "./status.js";
import { digit, read, trace, write } from "./strokes.js";
import { vary } from "./vary.js";

const DIGITS = [..."0123456789"];
const EXAMPLE = [
  [
    [88, 52],
    [80, 88],
    [72, 122],
    [76, 134],
    [104, 136],
    [140, 132],
    [178, 126],
  ],
  [
    [158, 48],
    [152, 92],
    [146, 140],
    [142, 180],
    [140, 214],
  ],
];
export const fields = {
  mode: word("vary", ["vary", "fill", "blend"]),
  source: word("drawn", ["drawn", ...DIGITS]), // one's own, or one of the model's digits
  strokes: word(write(EXAMPLE)),
  mask: word(""),
  label: word("none", ["none", ...DIGITS]),
  strength: whole(5, 1, 9), // tenths of t
  towards: word("8", DIGITS),
  seed: whole(0, 0, 999999),
  frame: whole(-1, -1, 1000),
};

export function open(change) {
  let [values, model, modelDigit, drawing, look] = [null, null, null, null, null];
  const state = status(() => update(values));
  const begin = later(300, () => everything().forEach((run) => run.start()));
  const modes = { vary: vary({ change, hear }), fill: fill({ change, hear }), blend: blend({ change, hear }) };
  const about = h("p", {});
  const chances = seen();
  const clean = panel({
    caption: ["as MNIST has it, ", variable("x", "0")],
    label: "The drawing, scaled and centred",
  });
  const place = h("div", { class: "mode" });
  const surface = pad({
    label: "Pad: draw a digit with a mouse or a finger, or choose one of the model's below",
    drawn,
    paint,
  });
  const masking = () => values.mode === "fill";
  const clear = () => change(masking() ? { mask: "" } : { source: "drawn", strokes: "" });
  const undo = () => {
    if (masking()) change({ mask: write(read(values.mask).slice(0, -1)) });
    else change({ source: "drawn", strokes: write(read(values.strokes).slice(0, -1)) });
  };
  const halves = HALVES.map((name) =>
    h("button", { type: "button", onclick: () => change({ mask: write(half(name)), frame: -1 }) }, name),
  );
  const regions = h("div", { class: "row", role: "group", "aria-label": "Mask a half" }, ...halves);
  const tools = h(
    "div",
    { class: "row" },
    h("button", { type: "button", onclick: undo }, "Undo"),
    h("button", { type: "button", onclick: clear }, "Clear"),
  );

  const controls = {
    mode: choice({
      label: "What next",
      options: [
        ["vary", "Bring back"],
        ["fill", "Fill in"],
        ["blend", "Interpolate"],
      ],
      told: (mode) => change({ mode, frame: -1 }),
    }),
    source: choice({
      label: "Or take the model’s",
      options: DIGITS.map((i) => [i, i]),
      told: (source) => change({ source }),
    }),
    label: choice({
      label: "The model aims at",
      options: [["none", "any"], ...DIGITS.map((i) => [i, i])],
      told: (label) => change({ label }),
    }),
    seed: seed({ told: (chosen) => change({ seed: chosen }) }),
  };
  const { mode, ...others } = controls;
  const desk = h(
    "div",
    { class: "desk" },
    h(
      "figure",
      { class: "panel" },
      h("figcaption", { "data-caption": "" }, "draw here"),
      surface.element,
      tools,
      regions,
    ),
    clean.element,
    chances.element,
  );
  const element = layout({
    name: "draw",
    title: "Your own digit",
    about: [
      "Draw a digit with the mouse or a finger. It is scaled and centred as the model’s training data is; the " +
        "model has never seen it.",
    ],
    first: [mode.element, about],
    stage: [state.element, desk, place],
    settings: Object.values(others).map((control) => control.element),
  });

  function drawn(points) {
    if (masking()) return change({ mask: write([...read(values.mask), points]), frame: -1 });
    const before = values.source === "drawn" ? read(values.strokes) : [];
    change({ source: "drawn", strokes: write([...before, points]) });
  }

  /** The pad: strokes as they are drawn, or the picture with the mask on it. */
  function paint(canvas, points) {
    const context = canvas.getContext("2d");
    const side = canvas.width;
    const spot = ([x, y]) => [(x / 255) * side, (y / 255) * side];
    context.imageSmoothingEnabled = false;
    context.fillRect(0, 0, side, side);
    if (!masking()) {
      if (values.source !== "drawn" && drawing && !points.length) context.drawImage(drawing, 0, 0, side, side);
      const before = values.source === "drawn" ? read(values.strokes) : [];
      return trace(context, [...before, ...(points.length ? [points] : [])], spot, 20, "#fff");
    }
    if (drawing) context.drawImage(drawing, 0, 0, side, side);
    context.globalAlpha = 0.6;
    const covered = mask([...read(values.mask), ...(points.length ? [points] : [])]);
    overlay(context, covered, side, getComputedStyle(canvas).getPropertyValue("--accent"));
    context.globalAlpha = 1;
  }

  const everything = () => [modelDigit, look, ...modes[values.mode].runs()].filter(Boolean);

  function hear() {
    const runs = everything();
    state.runs(runs, "");
    for (const run of runs) if (run.state === "new") begin();
  }

  /** The picture itself is there: a drawing at once, the model's digit when it has come. */
  async function prepare() {
    const own = values.source === "drawn";
    const strokes = own ? read(values.strokes) : [];
    drawing = own
      ? strokes.length
        ? digit(strokes)
        : null
      : modelDigit?.state === "done"
        ? modelDigit.frames.at(-1).x_t
        : null;
    surface.paint();
    place.hidden = drawing === null;
    if (!drawing) {
      clean.clear();
      chances.show(null);
      if (own) state.show("idle", "Draw a digit.");
      return;
    }
    clean.paint(drawing, 1);
    await recognise(own ? values.strokes : `${values.source} ${values.seed}`);
  }

  async function recognise(name) {
    const now = values;
    const covered = now.mask ? mask(read(now.mask)) : null;
    const [image, hole] = await Promise.all([drawing.convertToBlob(), covered?.convertToBlob() ?? null]);
    if (values !== now) return;
    look?.listeners.delete(classified);
    look = ask("/v1/images/classifications", { image, model: model.id }, name, Reply);
    look.listeners.add(classified);
    const aim = now.label === "none" ? { label: "none" } : { label: Number(now.label), guidance_scale: 2 };
    const request = (extra) => ({
      model: model.id,
      prompt: "",
      image,
      seed: now.seed,
      ...aim,
      stream: true,
      sprite: true,
      estimates: true,
      probabilities: true,
      ...extra,
    });
    modes[now.mode].update(now, request, name, hole, model.labels);
    if (look.state === "done") classified();
    hear();
  }

  function classified() {
    if (look.state !== "done") return hear();
    const { probabilities, labels = model.labels } = look.reply;
    chances.show({ probabilities, labels });
    const best = probabilities.indexOf(Math.max(...probabilities));
    modes[values.mode].recognise({ best, name: labels[best] });
    hear();
  }

  async function update(next) {
    if (next.mode !== values?.mode) {
      if (values) modes[values.mode].leave();
      place.replaceChildren(modes[next.mode].element);
    }
    values = next;
    for (const [name, control] of Object.entries(controls)) control.show(values[name]);
    about.textContent = modes[values.mode].about;
    regions.hidden = !masking();
    controls.label.element.hidden = values.mode === "blend";
    surface.paint();
    const all = await state.models();
    if (!all || values !== next) return;
    model = all.find(({ kind, labels, dataset }) => kind === "gaussian" && labels.length && dataset === "MNIST");
    if (!model)
      return state.show("refused", "This server has no model of digits with labels: start it with the shipped ones.");
    source();
    await prepare();
  }

  /** The model's digit that is asked for instead of a drawing. */
  function source() {
    modelDigit?.listeners.delete(arrived);
    modelDigit = null;
    if (values.source === "drawn") return;
    modelDigit = ask("/v1/images/generations", {
      model: model.id,
      prompt: "",
      n: 1,
      label: Number(values.source),
      guidance_scale: 2,
      seed: values.seed,
      stream: true,
      sprite: true,
      estimates: true,
    });
    if (modelDigit.state === "done") return;
    modelDigit.listeners.add(arrived);
    modelDigit.start();
  }

  function arrived() {
    if (modelDigit.state === "done") prepare();
    else hear();
  }

  function leave() {
    modelDigit?.listeners.delete(arrived);
    look?.listeners.delete(classified);
    Object.values(modes).forEach((each) => each.leave());
  }
  return { element, update, leave };
}
