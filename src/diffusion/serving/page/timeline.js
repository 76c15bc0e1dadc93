/** A time that can be scrubbed, and a button that plays it. */

import { h } from "./dom.js";

const LENGTH = 3000; // milliseconds that playing from end to end takes
const SHOWN = [25, 200]; // for how long a frame is shown, at least and at most

/** `told(frame)` hears of every move by hand or by playing; `text(frame)` is read out. */
export function timeline({ label, told, text }) {
  let [timer, last] = [0, 0];
  const input = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": label });
  const button = h("button", { type: "button", class: "play", "aria-label": "Play" });
  const output = h("p", { class: "reading" });

  const at = () => Number(input.value);
  const say = () => {
    output.textContent = text(at());
    input.setAttribute("aria-valuetext", output.textContent);
  };
  const move = (frame) => {
    input.value = frame;
    say();
    told(at());
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.setAttribute("aria-label", "Play");
  };
  const advance = () => {
    move(at() + 1);
    if (at() >= last) stop();
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (at() >= last) move(0);
    timer = setInterval(advance, Math.min(Math.max(LENGTH / last, SHOWN[0]), SHOWN[1]));
    button.setAttribute("aria-label", "Pause");
  });
  input.addEventListener("input", () => {
    stop();
    move(at());
  });
  return {
    element: h("div", { class: "timeline" }, button, input, output),
    show(frame, most) {
      last = most;
      input.max = most;
      input.value = frame;
      input.disabled = button.disabled = most < 1;
      say();
    },
    move(frame) {
      stop();
      move(frame);
    },
    stop,
  };
}
