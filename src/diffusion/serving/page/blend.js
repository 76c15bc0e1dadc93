/** Interpolate: pictures on the arc between the noise of a drawing and the noise of one of the model's digits. */

import { choice } from "./controls.js";
import { h } from "./dom.js";
import { panel } from "./panel.js";
import { Reply, ask, sampled } from "./run.js";

const WEIGHTS = ["0", "⅛", "¼", "⅜", "½", "⅝", "¾", "⅞", "1"];
const STEPS = 20;

export class Blend {
  about =
    "Every picture has a noise that the model draws it from. Half way between two noises lies a picture that neither " +
    "of them is, and still a digit.";

  constructor(change, hear) {
    Object.assign(this, { runs: [], asked: null });
    this.heard = () => {
      this.proceed();
      hear();
    };
    const options = [..."0123456789"].map((i) => [i, i]);
    this.towards = choice({ label: "Towards a", options, told: (towards) => change({ towards }) });
    this.panels = WEIGHTS.map((weight) => panel({ caption: weight, label: `The blend of weight ${weight}` }));
    const axis = h("p", { class: "note" }, "weight of the second: 0 is your drawing, 1 is the model’s");
    const strip = h("div", { class: "strip nine" }, ...this.panels.map(({ element }) => element));
    this.element = h("div", { class: "mode" }, this.towards.element, strip, axis);
  }

  paint() {
    const strip = this.runs[1];
    const shown = strip?.state === "done";
    this.element.classList.toggle("stale", !shown);
    if (!shown) return;
    strip.frames.forEach(({ x_t, probabilities }, i) => {
      this.panels[i].paint(x_t, 1);
      const best = Math.max(...probabilities);
      this.panels[i].note(`${this.asked.labels[probabilities.indexOf(best)]} ${Math.round(100 * best)} %`);
    });
  }

  /** The strip can be asked for when its other end is there. */
  async proceed() {
    const [end] = this.runs;
    if (end.state === "done" && this.runs.length === 1) {
      const second = await end.frames.at(-1).x_t.convertToBlob();
      if (this.runs[0] !== end || this.runs.length > 1) return; // others were asked for meanwhile
      const { image, model, key } = this.asked;
      const given = { first: image, second, n: WEIGHTS.length, steps: STEPS, model, probabilities: true };
      const strip = ask("/v1/images/interpolations", given, key, Reply);
      this.runs.push(strip);
      strip.listeners.add(this.heard);
      strip.start();
      return this.heard();
    }
    this.paint();
  }

  update({ towards, seed }, { request: { image, model }, name, model: { labels } }) {
    this.towards.show(towards);
    const key = `${name} ${towards} ${seed}`;
    if (this.asked?.key === key && this.runs.length) return this.paint();
    this.leave();
    this.asked = { key, image, model, labels };
    this.runs = [sampled(model, towards, seed)];
    this.runs[0].listeners.add(this.heard);
    this.proceed();
  }

  recognise() {}

  leave() {
    for (const run of this.runs) {
      run.listeners.delete(this.heard);
      run.stop();
    }
    this.runs = [];
  }
}
