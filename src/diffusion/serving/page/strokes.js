/** Strokes of a pen, as lists of points [x, y] in 0 … 255, and what they look like as an MNIST digit. */

export const SIDE = 28; // pixels of a picture
const BOX = 20; // pixels that the longer side of an MNIST digit has
const PEN = 2.4; // pixels, as wide as MNIST's strokes are drawn
const SMALL = 40; // units of a drawing that is not blown up any more

/** As letters for an address: each stroke is its number of points and their coordinates. */
export function write(strokes) {
  const bytes = strokes.flatMap((points) => [points.length, ...points.flat()]);
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}

/** The strokes of such letters; none if they are not. */
export function read(letters) {
  let bytes;
  try {
    bytes = Array.from(atob(letters.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  } catch {
    return [];
  }
  const strokes = [];
  while (bytes.length > 2 * bytes[0] && bytes[0] > 0) {
    const [, ...points] = bytes.splice(0, 1 + 2 * bytes[0]);
    strokes.push(Array.from({ length: points.length / 2 }, (_, i) => points.slice(2 * i, 2 * i + 2)));
  }
  return strokes;
}

/** Draws strokes on a canvas, through the middles between their points; `place` takes a point to pixels. */
export function trace(context, strokes, place, width, colour) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: colour });
  for (const points of strokes) {
    const at = points.map(place);
    context.beginPath();
    context.moveTo(...at[0]);
    at.slice(1).forEach(([x, y], i) => context.quadraticCurveTo(...at[i], (at[i][0] + x) / 2, (at[i][1] + y) / 2));
    context.lineTo(...at.at(-1));
    context.stroke();
  }
}

/** White strokes on black, 28 × 28; `place` takes a point to pixels. */
export function raster(strokes, place, width) {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, SIDE, SIDE);
  trace(context, strokes, place, width, "#fff");
  return canvas;
}

/** Where the ink of a picture is, in the mean. */
function centre(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, SIDE, SIDE);
  let [total, x, y] = [0, 0, 0];
  for (let i = 0; i < SIDE * SIDE; i++) {
    total += data[4 * i];
    x += data[4 * i] * ((i % SIDE) + 0.5);
    y += data[4 * i] * (Math.floor(i / SIDE) + 0.5);
  }
  return [x / total, y / total];
}

/** A drawing as MNIST has its digits: scaled into a box of 20 pixels, its centre of mass in the middle of 28. */
export function digit(strokes) {
  const [xs, ys] = [0, 1].map((axis) => strokes.flat().map((point) => point[axis]));
  const [low, high] = [
    [Math.min(...xs), Math.min(...ys)],
    [Math.max(...xs), Math.max(...ys)],
  ];
  const scale = (BOX - PEN) / Math.max(high[0] - low[0], high[1] - low[1], SMALL);
  const about =
    (shift) =>
    ([x, y]) => [
      (x - (low[0] + high[0]) / 2) * scale + SIDE / 2 + shift[0],
      (y - (low[1] + high[1]) / 2) * scale + SIDE / 2 + shift[1],
    ];
  const [x, y] = centre(raster(strokes, about([0, 0]), PEN));
  return raster(strokes, about([SIDE / 2 - x, SIDE / 2 - y]), PEN);
}
