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

export function fill({ change, hear }) {
  let [run, frame] = [null, END];
  const held = panel({ caption: ["held, ", variable("x", "t")], label: "Noisy pictures" });
  const believed = panel({ caption: ["believed, ", variable("x̂", "0")], label: "Estimated pictures" });
  const follow = follower((shown) => paint(shown));
  const told = (k) => change({ frame: k === run?.last && run.state === "done" ? END : k });
  const read = (k) => (run?.frames[k] ? `step ${k} of ${run.steps}, t = ${run.frames[k].t.toFixed(2)}` : "");
  const clock = timeline({ label: "Step", told, text: read });
  const empty = h("p", { class: "story" }, "Brush over a part of the picture above, or take a half.");
  const shown = h("div", {}, h("div", { class: "pair" }, held.element, believed.element), clock.element);

  function paint(k) {
    const now = run?.frames[k];
    element.classList.toggle("stale", !now);
    clock.show(Math.max(k, 0), run?.steps ?? 0);
    if (!now) return;
    held.paint(now.x_t, COUNT);
    believed.paint(now.x_0, COUNT);
  }

  function heard() {
    if (frame === END) follow.chase(run.last, run.state === "done");
    else paint(Math.min(frame, run.last));
    hear();
  }

  const element = h("div", { class: "mode" }, empty, shown);
  return {
    element,
    about:
      "What you brush over is drawn anew; the rest is kept to the bit. Four draws from one mask: where the " +
      "rest leaves a choice, they differ.",
    runs: () => (run ? [run] : []),
    update(values, fields, name, mask) {
      frame = values.frame;
      empty.hidden = mask !== null;
      shown.hidden = mask === null;
      if (mask === null) return this.leave();
      const wanted = ask(
        "/v1/images/edits",
        fields({ mask, n: COUNT, steps: STEPS, resample: RESAMPLE }),
        `${name} ${values.mask}`,
      );
      if (wanted !== run) {
        this.leave();
        run = wanted;
        run.listeners.add(heard);
        follow.reset(run.state === "done" ? run.last : -1);
      }
      paint(frame === END ? follow.shown : Math.min(frame, run.last));
    },
    recognise() {},
    leave() {
      clock.stop();
      follow.reset();
      run?.listeners.delete(heard);
      run?.stop();
      run = null;
    },
  };
}
