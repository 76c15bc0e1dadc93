/** What the server is doing, in one line: at work, done, full, gone, or in need of a token. */

import { h } from "./dom.js";
import * as server from "./server.js";

/** `retry()` asks again. */
export function status(retry) {
  const words = h("p", { role: "status" });
  const again = h("button", { type: "button", onclick: () => retry(), hidden: true }, "Try again");
  const token = h("input", { type: "password", "aria-label": "Token", placeholder: "Token", autocomplete: "off" });
  const send = (event) => {
    event.preventDefault();
    server.useToken(token.value);
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
    again.hidden = kind !== "gone" && kind !== "failed";
    form.hidden = kind !== "token";
  }

  function fail({ kind = "failed", message, wait }) {
    const told = {
      wait: `${message} Asking again in ${Math.ceil(wait)} s.`,
      gone: `${message} Understand works without it.`,
    };
    show(kind === "wait" ? "waiting" : kind, told[kind] ?? message);
  }

  let known = null;

  /** The models there are, waited for while they are loaded; null, and it is shown why, if they cannot be had. */
  async function models() {
    if (known) return known;
    show("running", "Waiting for the server …");
    try {
      known = await server.patiently(server.models, fail);
    } catch (error) {
      fail(error);
    }
    return known;
  }

  /** The state of some runs: the worst first. */
  function runs(all, done) {
    const [failed, waiting, running] = ["failed", "waiting", "running"].map((each) =>
      all.find(({ state }) => state === each),
    );
    if (failed) return fail(failed.error);
    if (waiting) return fail(waiting.error);
    const finished = all.every((run) => run.state === "done");
    if (!running) return show(finished ? "done" : "idle", finished ? done : "");
    const [have, want] = all.reduce(([a, b], run) => [a + run.frames.length, b + (run.steps ?? 0) + 1], [0, 0]);
    show("running", "Drawing …");
    if (have) progress.value = have / want;
  }
  return { element, show, models, runs };
}
