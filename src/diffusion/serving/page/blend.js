/** Interpolate: pictures on the arc between the noise of a drawing and the noise of one of the model's digits. */

import { choice } from "./controls.js";
import { h } from "./dom.js";
import { panel } from "./panel.js";
import { ask, Reply } from "./run.js";

const WEIGHTS = ["0", "⅛", "¼", "⅜", "½", "⅝", "¾", "⅞", "1"];
const STEPS = 20;

export function blend({ change, hear }) {
  let [runs, wanted] = [[], null];
  const towards = choice({
    label: "Towards a",
    options: [..."0123456789"].map((i) => [i, i]),
    told: (digit) => change({ towards: digit }),
  });
  const panels = WEIGHTS.map((weight) => panel({ caption: weight, label: `The blend of weight ${weight}` }));
  const axis = h("p", { class: "note" }, "weight of the second: 0 is your drawing, 1 is the model’s");

  function paint() {
    const strip = runs[1];
    const shown = strip?.state === "done";
    element.classList.toggle("stale", !shown);
    if (!shown) return;
    strip.frames.forEach(({ x_t, probabilities }, i) => {
      panels[i].paint(x_t, 1);
      if (!probabilities) return;
      const best = Math.max(...probabilities);
      panels[i].note(`${wanted.labels[probabilities.indexOf(best)]} ${Math.round(100 * best)} %`);
    });
  }

  /** The strip can be asked for when its other end is there. */
  function proceed() {
    const [end] = runs;
    if (end.state === "done" && runs.length === 1) {
      end.frames
        .at(-1)
        .x_t.convertToBlob()
        .then((second) => {
          if (runs[0] !== end || runs.length > 1) return;
          const given = {
            first: wanted.image,
            second,
            n: WEIGHTS.length,
            steps: STEPS,
            model: wanted.model,
            probabilities: true,
          };
          runs.push(ask("/v1/images/interpolations", given, wanted.key, Reply));
          runs[1].listeners.add(heard);
          runs[1].start();
          heard();
        });
    }
    paint();
  }

  function heard() {
    proceed();
    hear();
  }

  const element = h(
    "div",
    { class: "mode" },
    towards.element,
    h("div", { class: "strip nine" }, ...panels.map((each) => each.element)),
    axis,
  );
  return {
    element,
    about:
      "Every picture has a noise that the model draws it from. Half way between two noises lies a picture " +
      "that neither of them is, and still a digit.",
    runs: () => runs,
    update(values, fields, name, _, labels) {
      towards.show(values.towards);
      const { image, model } = fields({});
      const key = `${name} ${values.towards}`;
      if (wanted?.key === key && runs.length) return paint();
      this.leave();
      wanted = { key, image, model, labels };
      const asked = {
        model,
        prompt: "",
        n: 1,
        label: Number(values.towards),
        guidance_scale: 2,
        seed: values.seed,
        stream: true,
        sprite: true,
        estimates: true,
      };
      runs = [ask("/v1/images/generations", asked)];
      runs[0].listeners.add(heard);
      proceed();
    },
    recognise() {},
    leave() {
      for (const run of runs) {
        run.listeners.delete(heard);
        run.stop();
      }
      runs = [];
    },
  };
}
