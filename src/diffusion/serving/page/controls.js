/** Labelled controls. Each has an `element`, and `show(value)` sets it without telling anybody. */

import { h, id } from "./dom.js";

/** One of a few words, as radio buttons. `options` are [value, text or nodes]; `told(value)` hears of every choice. */
export function choice({ label, options, told, hint = "" }) {
  const name = id("choice");
  const radio = (value) => h("input", { type: "radio", name, value, onchange: () => told(value) });
  const pill = ([value, text]) => h("label", { class: "pill" }, radio(value), h("span", {}, ...[text].flat()));
  const pills = h("div", { class: "pills" }, ...options.map(pill));
  return {
    element: h("fieldset", { class: "choice" }, h("legend", {}, label, " ", h("small", {}, hint)), pills),
    show: (value) => {
      for (const each of pills.querySelectorAll("input")) each.checked = each.value === String(value);
    },
    rename: (texts) => pills.querySelectorAll("span").forEach((span, i) => (span.textContent = texts[i])),
  };
}

/** One of many words, as a list that folds. */
export function list({ label, options = [], told, hint = "" }) {
  const name = id("list");
  const select = h("select", { id: name, onchange: () => told(select.value) });
  const offer = (pairs) => select.replaceChildren(...pairs.map(([value, text]) => h("option", { value }, text)));
  offer(options);
  return {
    element: h("div", { class: "field" }, h("label", { for: name }, label, " ", h("small", {}, hint)), select),
    show: (value) => (select.value = value),
    offer,
  };
}

/** A number on a scale; `text(value)` is how it is read. */
export function slider({ label, low, high, step = 1, told, text = String, hint = "" }) {
  const name = id("slider");
  const output = h("output", { for: name });
  const input = h("input", { id: name, type: "range", min: low, max: high, step });
  const say = () => {
    output.value = text(Number(input.value));
    input.setAttribute("aria-valuetext", output.value);
  };
  input.addEventListener("input", () => {
    say();
    told(Number(input.value));
  });
  const top = h("div", { class: "top" }, h("label", { for: name }, label, " ", h("small", {}, hint)), output);
  return {
    element: h("div", { class: "field" }, top, input),
    show: (value) => {
      input.value = value;
      say();
    },
  };
}

/** A seed, and a button for the next one. */
export function seed({ told, label = "Seed" }) {
  const name = id("seed");
  const input = h("input", { id: name, type: "number", min: 0, max: 999999, step: 1, inputmode: "numeric" });
  const tell = () => input.checkValidity() && input.value !== "" && told(Number(input.value));
  input.addEventListener("change", tell);
  const next = () => {
    input.value = (Number(input.value) + 1) % 1000000;
    tell();
  };
  const row = h("div", { class: "row" }, input, h("button", { type: "button", onclick: next }, "Other noise"));
  return {
    element: h(
      "div",
      { class: "field" },
      h("label", { for: name }, label, " ", h("small", {}, "the noise it starts from")),
      row,
    ),
    show: (value) => (input.value = value),
  };
}
