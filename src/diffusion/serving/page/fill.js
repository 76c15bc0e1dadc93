/** Fill in: a part of a drawing is masked, and the model finishes it. */

import { h, variable } from "./dom.js";
import { follower } from "./follow.js";
import { panel } from "./panel.js";
import { ask } from "./run.js";
import { timeline } from "./timeline.js";

const END = -1; // the frame that is always the last
const COUNT = 4;
const STEPS = 20;
const RESAMPLE = 4; // passes a step, so that what is filled in agrees with what is kept

export class Fill {
  about =
    "What you brush over is drawn anew; the rest is kept to the bit. Four draws from one mask: where the rest leaves " +
    "a choice, they differ.";

  constructor(change, hear) {
    Object.assign(this, { run: null, frame: END, follow: follower((frame) => this.paint(frame)) });
    this.heard = () => {
      if (this.frame === END) this.follow.chase(this.run.last, this.run.state === "done");
      else this.paint(Math.min(this.frame, this.run.last));
      hear();
    };
    const told = (frame) => change({ frame: frame === this.run?.last && this.run.state === "done" ? END : frame });
    this.held = panel({ caption: ["held, ", variable("x", "t")], label: "Noisy pictures" });
    this.believed = panel({ caption: ["believed, ", variable("x̂", "0")], label: "Estimated pictures" });
    this.clock = timeline({ label: "Step", told, text: (frame) => this.read(frame) });
    this.empty = h("p", { class: "story" }, "Brush over a part of the picture above, or take a half.");
    const pair = h("div", { class: "pair" }, this.held.element, this.believed.element);
    this.shown = h("div", {}, pair, this.clock.element);
    this.element = h("div", { class: "mode" }, this.empty, this.shown);
  }

  get runs() {
    return this.run ? [this.run] : [];
  }

  read(frame) {
    const state = this.run?.frames[frame];
    return state ? `step ${frame} of ${this.run.steps}, t = ${state.t.toFixed(2)}` : "";
  }

  paint(frame) {
    const state = this.run?.frames[frame];
    this.element.classList.toggle("stale", !state);
    this.clock.show(Math.max(frame, 0), this.run?.steps ?? 0);
    if (!state) return;
    this.held.paint(state.x_t, COUNT);
    this.believed.paint(state.x_0, COUNT);
  }

  update(values, { request, name, hole }) {
    this.frame = values.frame;
    this.empty.hidden = hole !== null;
    this.shown.hidden = hole === null;
    if (hole === null) return this.leave();
    const asked = { ...request, mask: hole, n: COUNT, steps: STEPS, resample: RESAMPLE };
    this.take(ask("/v1/images/edits", asked, `${name} ${values.mask}`));
    this.paint(this.frame === END ? this.follow.shown : Math.min(this.frame, this.run.last));
  }

  take(run) {
    if (run === this.run) return;
    this.leave();
    this.run = run;
    run.listeners.add(this.heard);
    this.follow.reset(run.state === "done" ? run.last : -1);
  }

  recognise() {}

  leave() {
    this.clock.stop();
    this.follow.reset();
    this.run?.listeners.delete(this.heard);
    this.run?.stop();
    this.run = null;
  }
}
