/** A surface to draw on with a mouse, a pen or a finger. */

import { h } from "./dom.js";

const NEAR = 5; // units of 255 that a pointer has to move to be heard
const MOST = 255; // points of a stroke

/** `drawn(points)` hears of each finished stroke; `paint(canvas, points)` shows it while it is drawn. */
export function pad({ label, drawn, paint }) {
  const canvas = h("canvas", {
    width: 280,
    height: 280,
    class: "pad",
    role: "img",
    "aria-label": label,
    "data-picture": "",
  });
  let points = null;
  const place = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    const unit = (at, low, size) => Math.round(Math.min(Math.max((at - low) / size, 0), 1) * 255);
    return [unit(clientX, box.left, box.width), unit(clientY, box.top, box.height)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    points = [place(event)];
    paint(canvas, points);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!points || points.length >= MOST) return;
    const [x, y] = place(event);
    if (Math.hypot(x - points.at(-1)[0], y - points.at(-1)[1]) < NEAR) return;
    points.push([x, y]);
    paint(canvas, points);
  });
  const finish = () => {
    const done = points;
    points = null;
    if (done) drawn(done);
  };
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", finish);
  return { element: canvas, paint: () => paint(canvas, points ?? []) };
}
