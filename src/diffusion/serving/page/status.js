/** What the server is doing, in one line: at work, done, full, gone, or in need of a token. */

import { h } from "./dom.js";
import { useToken } from "./server.js";

/** `retry()` asks again. */
export function status(retry) {
  const words = h("p", { role: "status" });
  const again = h("button", { type: "button", onclick: () => retry(), hidden: true }, "Try again");
  const token = h("input", { type: "password", "aria-label": "Token", placeholder: "Token", autocomplete: "off" });
  const send = (event) => {
    event.preventDefault();
    useToken(token.value);
    retry();
  };
  const form = h("form", { class: "row", onsubmit: send, hidden: true }, token, h("button", {}, "Use it"));
  const progress = h("progress", { max: 1, "aria-label": "Drawn so far" });
  const element = h("div", { class: "status" }, words, progress, again, form);

  function show(kind, message) {
    element.dataset.kind = kind;
    element.setAttribute("aria-busy", kind === "running" || kind === "waiting");
    if (words.textContent !== message) words.textContent = message; // is read out when it changes
    progress.hidden = kind !== "running";
    progress.removeAttribute("value");
    again.hidden = kind !== "gone" && kind !== "refused";
    form.hidden = kind !== "token";
  }

  const shown = {
    wait: ({ wait, message }) => show("waiting", `${message} It will be asked again in ${Math.ceil(wait)} s.`),
    gone: ({ message }) => show("gone", `${message} Understand works without it.`),
    token: () => show("token", "This server asks for a token."),
    refused: ({ message }) => show("refused", message),
  };
  const fail = (error) => (shown[error.kind] ?? shown.refused)(error);

  /** The state of some runs: the worst first. */
  function runs(all, done) {
    const [failed, waiting, running] = ["failed", "waiting", "running"].map((state) => all.find((run) => run.state === state));
    if (failed) return fail(failed.error);
    if (waiting) return fail(waiting.error);
    const finished = all.every((run) => run.state === "done");
    if (!running) return show(finished ? "done" : "idle", finished ? done : "");
    const [have, want] = all.reduce(([a, b], run) => [a + run.frames.length, b + (run.steps ?? 0) + 1], [0, 0]);
    show("running", "Drawing …");
    if (have) progress.value = have / want;
  }
  return { element, show, fail, runs };
}
