/** The page: which view is open, and its state, both kept in the address. */

import { read, write } from "./address.js";
import * as compare from "./compare.js";
import * as denoise from "./denoise.js";
import { later } from "./dom.js";
import * as draw from "./draw.js";
import * as prompt from "./prompt.js";
import { known } from "./server.js";
import * as understand from "./understand.js";

// A view is { fields, open(change) }; open answers with { element, update(values), leave() }.
const VIEWS = { denoise, compare, draw, prompt, understand };
const main = document.querySelector("main");
const links = Object.fromEntries([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
let [name, values, view] = ["", {}, null];

// Browsers let a page write its address a hundred times in half a minute, and a slider moves faster.
const remember = later(200, () => history.replaceState(null, "", write(name, values)));

function change(changes) {
  values = { ...values, ...changes };
  view.update(values);
  remember();
}

function enter(next) {
  if (view) {
    view.leave();
    links[name].href = write(name, values); // the way back leads to where one was
    links[name].removeAttribute("aria-current");
  }
  name = next;
  view = VIEWS[name].open(change);
  main.replaceChildren(view.element);
  links[name].setAttribute("aria-current", "page");
  document.title = `${main.querySelector("h1").textContent} – Diffusion, step by step`;
}

function follow() {
  const [next, wanted] = read(location.hash, VIEWS);
  const [moved, first] = [next !== name, name === ""];
  if (moved) enter(next);
  values = wanted;
  view.update(values);
  if (moved && !first) main.querySelector("h1").focus();
}

// The address is the state's: skipping to the content leaves it alone.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
known.then((all) => (links.prompt.hidden = !all.some(({ prompts }) => prompts)));
addEventListener("hashchange", follow);
follow();
