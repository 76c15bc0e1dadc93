/** Compare: some runs from the same noise that differ in one thing, on one scrubber. */

import { whole, word } from "./address.js";
import { choice, list, seed, slider } from "./controls.js";
import { DIFFERENCES, families } from "./differences.js";
import { h, later, variable } from "./dom.js";
import { follower } from "./follow.js";
import { layout } from "./layout.js";
import { panel } from "./panel.js";
import { ask } from "./run.js";
import { status } from "./status.js";
import { timeline } from "./timeline.js";

const END = -1; // the place that is always the last
const COUNT = 3; // pictures a column

export const fields = {
  what: word("guidance", Object.keys(DIFFERENCES)),
  label: word("3", [..."0123456789"]),
  calls: whole(4, 2, 25), // half of them, as Heun's last step takes one call and the others two
  family: word(""), // "": the first that was kept at several epochs
  seed: whole(0, 0, 999999),
  show: word("x_t", ["x_t", "x_0"]),
  place: whole(END, END, 1000), // in network calls
};

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
    what: choice({
      label: "What differs",
      options: Object.entries(DIFFERENCES).map(([key, { name }]) => [key, name]),
      told: (what) => change({ what, place: END }),
    }),
    calls: slider({
      label: "Network calls a picture",
      low: 2,
      high: 25,
      told: (calls) => change({ calls, place: END }),
      text: (half) => String(2 * half - 1),
    }),
    label: choice({
      label: "Draw a",
      options: [..."0123456789"].map((i) => [i, i]),
      told: (label) => change({ label }),
    }),
    show: choice({
      label: "Show",
      options: [
        ["x_t", [variable("x", "t"), ", held"]],
        ["x_0", [variable("x̂", "0"), ", believed"]],
      ],
      told: (chosen) => change({ show: chosen }),
    }),
    family: list({ label: "Model", told: (family) => change({ family, place: END }) }),
    seed: seed({ told: (chosen) => change({ seed: chosen }) }),
  };
  const { what, calls, label, ...others } = controls;
  const element = layout({
    name: "compare",
    title: "Same noise, one difference",
    about: [
      [
        "Every column starts from the same three draws of noise, ",
        variable("x", "1"),
        ", where there is noise. What is different at the end comes from one thing alone.",
      ],
    ],
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
  const reached = () =>
    Math.min(
      ...columns.map(({ run, calls }) =>
        run.state === "done" ? calls : run.last * Math.ceil(calls / run.steps || 1),
      ),
    );

  function show(place) {
    element.classList.toggle("stale", reached() < 0);
    clock.show(Math.max(place, 0), columns[0].calls);
    for (const column of columns) {
      const shown = frame(column, place);
      if (!shown) continue;
      column.panel.paint(values.show === "x_t" ? shown.x_t : shown.x_0, COUNT);
      const { label } = column.request;
      const chances =
        label !== undefined && shown.probabilities ? shown.probabilities.map((each) => each[label]) : null;
      column.panel.note(chances ? `p(${label}) ${(chances.reduce((a, b) => a + b) / COUNT).toFixed(2)}` : "");
    }
  }

  function hear() {
    state.runs(
      runs(),
      values.what === "guidance" || values.what === "samplers"
        ? `p(${values.label}): the mean probability that a classifier gives the label.`
        : "",
    );
    if (values.place === END) follow.chase(reached(), ended());
    else show(Math.min(values.place, reached()));
  }

  function take(made) {
    leave();
    columns = made;
    strip.replaceChildren(
      ...columns.map((column) => {
        column.panel = panel({ caption: column.caption, columns: () => 1, label: `Pictures, ${column.caption}` });
        column.run.listeners.add(hear);
        return column.panel.element;
      }),
    );
    follow.reset(columns.length && ended() ? columns[0].calls : -1);
  }

  async function update(next) {
    values = next;
    about.textContent = DIFFERENCES[values.what].about;
    for (const [key, control] of Object.entries(controls)) control.show(values[key]);
    const needs = { label: ["guidance", "samplers"], calls: ["samplers"], family: ["training"] };
    for (const [key, kinds] of Object.entries(needs)) controls[key].element.hidden = !kinds.includes(values.what);
    all = await state.models();
    if (!all || values !== next) return;
    const kept = [...families(all).keys()];
    controls.family.offer(kept.map((family) => [family, family]));
    controls.family.show(kept.includes(values.family) ? values.family : kept[0]);
    const made = DIFFERENCES[values.what].columns(values, all);
    if (made.length < 2) {
      take([]);
      return state.show("refused", "This server has not the models to show that: start it with the shipped ones.");
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
