/** A part of a picture that is to be drawn anew, brushed over by strokes. */

import { raster, SIDE } from "./strokes.js";

const BRUSH = 6; // pixels of 28

export const HALVES = ["Top", "Bottom", "Left", "Right"];

/** A brush's way over half of the picture. */
export function half(name) {
  const start = ["Top", "Left"].includes(name) ? 14 : 142;
  const [lines, ends] = [[0, 33, 66, 99].map((offset) => start + offset), [0, 128, 255]];
  const upright = ["Left", "Right"].includes(name);
  return lines.map((line) => ends.map((end) => (upright ? [line, end] : [end, line])));
}

/** Which of the 28 × 28 pixels a brush went over: white there, black elsewhere. */
export function mask(strokes) {
  const canvas = raster(strokes, ([x, y]) => [(x / 255) * SIDE, (y / 255) * SIDE], BRUSH);
  const context = canvas.getContext("2d");
  const image = context.getImageData(0, 0, SIDE, SIDE);
  image.data.forEach((value, i) => (image.data[i] = value > 127 ? 255 : 0));
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Paints the white pixels of a mask over a canvas. */
export function overlay(context, covered, side, colour) {
  const { data } = covered.getContext("2d").getImageData(0, 0, SIDE, SIDE);
  const size = side / SIDE;
  Object.assign(context, { fillStyle: colour, globalAlpha: 0.6 });
  for (let i = 0; i < SIDE * SIDE; i++)
    if (data[4 * i]) context.fillRect((i % SIDE) * size, Math.floor(i / SIDE) * size, size, size);
  context.globalAlpha = 1;
}
