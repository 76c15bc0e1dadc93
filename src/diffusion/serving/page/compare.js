/** Compare: some runs from the same noise that differ in one thing, on one scrubber. */

import { whole, word } from "./address.js";
import { choice, list, seed, slider } from "./controls.js";
import { h, later, variable } from "./dom.js";
import { follower } from "./follow.js";
import { layout } from "./layout.js";
import { panel } from "./panel.js";
import { ask } from "./run.js";
import { models } from "./server.js";
import { status } from "./status.js";
import { timeline } from "./timeline.js";

const END = -1; // the place that is always the last
const COUNT = 3; // pictures a column
const COLD = 28; // steps, as many as there are lines
const TRAINED = 100; // steps of the models that are still being trained
const SOLVERS = { ddim: "DDIM", ddpm: "DDPM", heun: "Heun", dpm: "DPM" };

export const fields = {
  what: word("guidance", ["guidance", "samplers", "cold", "training"]),
  label: word("3", [..."0123456789"]),
  calls: whole(4, 2, 25), // half of them, as Heun's last step takes one call and the others two
  family: word(""), // "": the first that was kept at several epochs
  seed: whole(0, 0, 999999),
  show: word("x_t", ["x_t", "x_0"]),
  place: whole(END, END, 1000), // in network calls
};

// What differs: a sentence, and the columns { caption, calls, request } that values and models make.
const KINDS = {
  guidance: {
    name: "Guidance",
    about: "Guidance moves each belief away from what the network says without a label, past what it says with it. 0 ignores the label, 1 follows it, more exaggerates it: clearer digits, and less different ones.",
    columns({ label }, all) {
      const { id: model, defaults } = all.find(guidable);
      const { steps, sampler } = defaults;
      const request = (guidance_scale) => ({ model, steps, sampler, label: Number(label), guidance_scale });
      return [0, 1, 2, 3, 4].map((scale) => ({ caption: `scale ${scale}`, calls: steps, request: request(scale) }));
    },
  },
  samplers: {
    name: "Samplers",
    about: "Each may ask the network equally often. DDIM goes straight for each belief, DDPM adds fresh noise on its way, Heun asks twice a step, and DPM extrapolates from its last two answers. Give them few calls, then many.",
    columns({ label, calls: half }, all) {
      const { id: model, samplers } = all.find(guidable);
      const calls = 2 * half - 1;
      const request = (sampler) => ({ model, sampler, steps: sampler === "heun" ? half : calls, label: Number(label) });
      const known = Object.keys(SOLVERS).filter((sampler) => samplers.includes(sampler));
      return known.map((sampler) => ({ caption: SOLVERS[sampler], calls, request: request(sampler) }));
    },
  },
  cold: {
    name: "Hot and cold",
    about: "Nothing in the loop needs noise. Cold diffusion averages the lines of a picture, one after the other, and a network learns to undo that: the same loop, from stripes instead of static.",
    columns(_, all) {
      const cold = all.filter(({ kind, id }) => kind === "averaging" && id.startsWith("cold"));
      const chosen = [all.find(({ kind }) => kind === "gaussian"), ...(cold.length ? cold : all.filter(({ kind }) => kind === "averaging").slice(0, 2))];
      const lines = { row: "rows averaged", col: "columns averaged" };
      const caption = ({ kind, axis }) => (kind === "averaging" ? lines[axis] : "noise");
      const request = ({ id: model, labels }) => ({ model, steps: COLD, ...(labels.length ? { label: "none" } : {}) });
      return chosen.map((model) => ({ caption: caption(model), calls: COLD, request: request(model) }));
    },
  },
  training: {
    name: "Training",
    about: "One model after more and more epochs of training, from the same noise each time. Untrained, it turns noise into other noise; strokes come first, digits later.",
    columns({ family }, all) {
      const kept = families(all);
      const chosen = kept.get(family) ?? kept.values().next().value;
      const calls = ({ kind, defaults }) => (kind === "averaging" ? defaults.steps : TRAINED);
      return chosen.map((model) => ({ caption: `epoch ${model.epoch}`, calls: calls(model), request: { model: model.id, steps: calls(model) } }));
    },
  },
};

const guidable = ({ kind, labels }) => kind === "gaussian" && labels.length > 0;

/** The models that were kept at several epochs, by family. */
function families(all) {
  const kept = Map.groupBy(all, ({ family }) => family);
  for (const [family, models] of kept) {
    if (models.length < 2) kept.delete(family);
    else models.sort((a, b) => a.epoch - b.epoch);
  }
  return kept;
}

const complete = ({ request }, { seed: chosen }) => ({
  prompt: "",
  ...request,
  n: COUNT,
  seed: chosen,
  stream: true,
  sprite: true,
  estimates: true,
  probabilities: true,
});

export function open(change) {
  let [values, all, columns] = [null, null, []];
  const strip = h("div", { class: "strip" });
  const follow = follower((place) => show(place));
  const state = status(() => update(values));
  const begin = later(250, () => columns.forEach(({ run }) => run.start()));
  const about = h("p", { class: "kind" });
  const told = (place) => change({ place: place === columns[0]?.calls ? END : place });
  const clock = timeline({ label: "Network calls", told, text: (place) => read(place) });
  const runs = () => columns.map(({ run }) => run);
  const ended = () => runs().every((run) => run.state === "done");

  const controls = {
    what: choice({ label: "What differs", options: Object.entries(KINDS).map(([key, { name }]) => [key, name]), told: (what) => change({ what, place: END }) }),
    calls: slider({ label: "Network calls a picture", low: 2, high: 25, told: (calls) => change({ calls, place: END }), text: (half) => String(2 * half - 1) }),
    label: choice({ label: "Draw a", options: [..."0123456789"].map((i) => [i, i]), told: (label) => change({ label }) }),
    show: choice({ label: "Show", options: [["x_t", [variable("x", "t"), ", held"]], ["x_0", [variable("x̂", "0"), ", believed"]]], told: (chosen) => change({ show: chosen }) }),
    family: list({ label: "Model", told: (family) => change({ family, place: END }) }),
    seed: seed({ told: (chosen) => change({ seed: chosen }) }),
  };
  const { what, calls, label, ...others } = controls;
  const element = layout({
    name: "compare",
    title: "Same noise, one difference",
    about: [["Every column starts from the same three draws of noise, ", variable("x", "1"), ", where there is noise. What is different at the end comes from one thing alone."]],
    first: [what.element, about, calls.element, label.element],
    stage: [state.element, strip, clock.element],
    settings: Object.values(others).map((control) => control.element),
  });

  /** The last frame of a run that it has reached after so many network calls. */
  function frame({ run, calls }, place) {
    const each = Math.ceil(calls / run.steps);
    return run.frames.findLast((_, k) => (k === run.steps ? calls : k * each) <= place);
  }

  function read(place) {
    const shown = columns.length && frame(columns[0], place);
    return shown ? `after ${place} of ${columns[0].calls} network calls, t = ${shown.t.toFixed(2)}` : "";
  }

  /** How many network calls all runs have got to. */
  const reached = () => Math.min(...columns.map(({ run, calls }) => (run.state === "done" ? calls : run.last * Math.ceil(calls / run.steps || 1))));

  function show(place) {
    element.classList.toggle("stale", reached() < 0);
    clock.show(Math.max(place, 0), columns[0].calls);
    for (const column of columns) {
      const shown = frame(column, place);
      if (!shown) continue;
      column.panel.paint(values.show === "x_t" ? shown.x_t : shown.x_0, COUNT);
      const { label } = column.request;
      const chances = label !== undefined && shown.probabilities ? shown.probabilities.map((each) => each[label]) : null;
      column.panel.note(chances ? `p(${label}) ${(chances.reduce((a, b) => a + b) / COUNT).toFixed(2)}` : "");
    }
  }

  function hear() {
    state.runs(runs(), values.what === "guidance" || values.what === "samplers" ? `p(${values.label}): the mean probability that a classifier gives the label.` : "");
    if (values.place === END) follow.chase(reached(), ended());
    else show(Math.min(values.place, reached()));
  }

  function take(made) {
    leave();
    columns = made;
    strip.replaceChildren(...columns.map((column) => {
      column.panel = panel({ caption: column.caption, columns: () => 1, label: `Pictures, ${column.caption}` });
      column.run.listeners.add(hear);
      return column.panel.element;
    }));
    follow.reset(ended() ? columns[0].calls : -1);
  }

  async function update(next) {
    values = next;
    about.textContent = KINDS[values.what].about;
    for (const [key, control] of Object.entries(controls)) control.show(values[key]);
    const needs = { label: ["guidance", "samplers"], calls: ["samplers"], family: ["training"] };
    for (const [key, kinds] of Object.entries(needs)) controls[key].element.hidden = !kinds.includes(values.what);
    try {
      if (!all) state.show("running", "Waiting for the server …");
      all = await models();
    } catch (error) {
      return state.fail(error);
    }
    if (values !== next) return;
    const kept = [...families(all).keys()];
    controls.family.offer(kept.map((family) => [family, family]));
    controls.family.show(kept.includes(values.family) ? values.family : kept[0]);
    let made;
    try {
      made = KINDS[values.what].columns(values, all);
    } catch {
      take([]);
      return state.show("refused", "This server has no model to show that with: start it with the shipped ones.");
    }
    for (const column of made) column.run = ask("/v1/images/generations", complete(column, values));
    if (made.some(({ run }, i) => run !== columns[i]?.run) || made.length !== columns.length) take(made);
    if (!ended()) begin();
    else if (values.place === END) follow.reset(columns[0].calls);
    show(values.place === END ? follow.shown : Math.min(values.place, reached()));
    hear();
  }

  function leave() {
    clock.stop();
    follow.reset();
    for (const { run } of columns) {
      run.listeners.delete(hear);
      run.stop();
    }
  }
  return { element, update, leave };
}
