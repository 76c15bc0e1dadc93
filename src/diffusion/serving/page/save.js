/** A picture of what is shown, as a PNG file, and a link to it. */

import { h } from "./dom.js";

const SHARP = 2; // pixels of the file for one of the page
const MARGIN = 20; // of the page
const LOW = { t: "ₜ", 0: "₀", 1: "₁" }; // the indices of variables, where there is no markup
const DRAWN = [
  "fill",
  "stroke",
  "fill-opacity",
  "stroke-opacity",
  "stroke-width",
  "stroke-dasharray",
  "opacity",
  "font-family",
  "font-size",
  "font-weight",
  "stop-color",
  "stop-opacity",
];

/** An SVG as an image that needs no style sheet. */
async function image(picture) {
  const copy = picture.cloneNode(true);
  const [from, to] = [picture, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of DRAWN) to[i].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const loaded = new Image();
  loaded.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  await loaded.decode();
  return loaded;
}

/** A caption in plain letters. */
const letters = (node) =>
  node.nodeName === "SUB"
    ? LOW[node.textContent]
    : node.childNodes.length
      ? [...node.childNodes].map(letters).join("")
      : node.textContent;

/** Text in lines no wider than that. */
function wrap(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (lines.at(-1) && context.measureText(longer).width > width + 1) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}

function write(context, element, x, y, width) {
  const { font, color, textAlign, lineHeight } = getComputedStyle(element);
  Object.assign(context, {
    font,
    fillStyle: color,
    textBaseline: "top",
    textAlign: textAlign === "center" ? "center" : "left",
  });
  for (const [i, line] of wrap(context, letters(element), width).entries()) {
    context.fillText(line, textAlign === "center" ? x + width / 2 : x, y + i * parseFloat(lineHeight), width);
  }
}

/** All pictures and captions of a section, where they are on the page, as one canvas. */
export async function compose(section) {
  const shown = [...section.querySelectorAll("[data-picture], [data-caption]")];
  const boxes = shown.map((element) => element.getBoundingClientRect());
  const seen = boxes.filter(({ width, height }) => width && height);
  const edge = (side, most) => most(...seen.map((box) => box[side]));
  const [left, top] = [edge("left", Math.min) - MARGIN, edge("top", Math.min) - MARGIN];
  const [width, height] = [edge("right", Math.max) + MARGIN - left, edge("bottom", Math.max) + MARGIN - top];
  const canvas = h("canvas", { width: Math.ceil(width * SHARP), height: Math.ceil(height * SHARP) });
  const context = canvas.getContext("2d");
  context.scale(SHARP, SHARP);
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.fillRect(0, 0, width, height);
  for (const [i, element] of shown.entries()) {
    const box = boxes[i];
    if (!seen.includes(box)) continue;
    const [x, y] = [box.left - left, box.top - top];
    context.imageSmoothingEnabled = !(element instanceof HTMLCanvasElement); // pixels stay squares
    if ("caption" in element.dataset) write(context, element, x, y, box.width);
    else
      context.drawImage(element instanceof SVGElement ? await image(element) : element, x, y, box.width, box.height);
  }
  return canvas;
}

export async function savePicture(section, name) {
  const canvas = await compose(section);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const copyLink = () => navigator.clipboard.writeText(location.href);
