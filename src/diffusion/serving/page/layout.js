/** What all views share: a title, some sentences, a stage, its settings, and two ways to take it away. */

import { h } from "./dom.js";
import { copyLink, savePicture } from "./save.js";

export function layout({ title, about, first = [], stage, settings, name }) {
  const shown = h("section", { class: "stage", "aria-label": "Pictures" }, ...stage);
  const said = h("span", { role: "status", class: "said" });
  const say = (words) => (said.textContent = words);
  const save = () =>
    savePicture(shown, `${name}.png`).then(
      () => say(`Saved as ${name}.png`),
      () => say("Could not be saved"),
    );
  const copy = () =>
    copyLink().then(
      () => say("Copied"),
      () => say("Could not be copied: the link is in the address bar"),
    );
  const take = h(
    "div",
    { class: "take" },
    h("button", { type: "button", onclick: save }, "Download PNG"),
    h("button", { type: "button", onclick: copy }, "Copy link"),
    said,
  );
  const heading = h("h1", { tabindex: -1 }, title);
  const sentences = about.map((sentence) => h("p", {}, ...[sentence].flat()));
  const intro = h("section", { class: "intro" }, heading, ...sentences, ...first);
  const box = h("section", { class: "settings", "aria-label": "Settings" }, ...settings, take);
  return h("div", { class: "view" }, intro, shown, box);
}
