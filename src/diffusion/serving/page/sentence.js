/** A box for a sentence, which offers the words that a model knows and refuses others where they are written. */

import { h, id } from "./dom.js";
import { completions, unknown } from "./vocabulary.js";

const OFFERED = 6; // words

class Sentence {
  constructor({ label, told, hint = "" }) {
    const [name, said] = [id("sentence"), id("said")];
    Object.assign(this, { told, words: [], last: "" });
    this.input = h("textarea", {
      ...{ id: name, rows: 2, maxlength: 400, autocomplete: "off", spellcheck: "false", "aria-describedby": said },
      oninput: () => this.check(true),
      onkeydown: (event) => event.key === "Enter" && this.enter(event),
    });
    this.offers = h("div", { class: "offers", role: "group", "aria-label": "Words that may follow" });
    this.refusal = h("p", { id: said, role: "status", class: "refusal" });
    const top = h("label", { for: name }, label, " ", h("small", {}, hint));
    const left = ({ relatedTarget }) => this.element.contains(relatedTarget) || this.finish();
    this.element = h("div", { class: "field", onfocusout: left }, top, this.input, this.offers, this.refusal);
  }

  /** The sentence as it stands. */
  get text() {
    return this.input.value.trim();
  }

  /** What is wrong with it, and what its last word may become while it is `open`; whether all is well. */
  check(open) {
    const { input, words } = this;
    const wrong = unknown(input.value, words, open);
    input.setAttribute("aria-invalid", wrong !== null);
    this.refusal.replaceChildren();
    if (wrong) {
      const { word, at, near } = wrong;
      this.refusal.append(`It has not learnt “${word}”.`);
      if (near) this.refusal.append(" The nearest: ", this.offer(near, at, word.length));
    }
    const begun = input.value.match(/[^\s,;:.!?]*$/);
    const next = open ? completions(input.value, words, OFFERED) : [];
    this.offers.replaceChildren(...next.map((word) => this.offer(word, begun.index, begun[0].length)));
    return wrong === null;
  }

  /** A button that writes a word in the place of the letters from `at` on. */
  offer(word, at, letters) {
    const write = () => this.write(at, letters, word);
    return h("button", { type: "button", onmousedown: (event) => event.preventDefault(), onclick: write }, word);
  }

  write(at, letters, word) {
    const { value } = this.input;
    this.input.value = `${value.slice(0, at)}${word}${value.slice(at + letters) || " "}`;
    this.input.focus();
    this.check(true);
  }

  /** Adds a word at its end. */
  add(word) {
    this.write(this.text.length, this.input.value.length, `${this.text && " "}${word}`);
  }

  enter(event) {
    event.preventDefault(); // a sentence is one line
    this.finish();
  }

  finish() {
    if (!this.check(false) || this.text === this.last) return;
    this.last = this.text;
    this.told(this.text);
  }

  /** Which words are known; none: any. */
  knows(words) {
    this.words = words;
  }

  /** Unless something else is being written. */
  show(value) {
    const writing = document.activeElement === this.input && this.text !== this.last;
    this.last = value;
    if (writing) return;
    if (this.text !== value) this.input.value = value;
    this.check(false);
  }
}

/** `told(text)` hears of it when it is finished and all its words are known. */
export const sentence = (given) => new Sentence(given);
