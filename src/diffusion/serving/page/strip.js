/** Columns of pictures on one scrubber, each a run: { caption, calls, request, run }, `calls` its network calls. */

import { h } from "./dom.js";
import { follower } from "./follow.js";
import { panel } from "./panel.js";
import { status } from "./status.js";
import { timeline } from "./timeline.js";

export const END = -1; // the place that is always the last

/** Network calls a step, of all steps but Heun's last. */
const each = ({ run, calls }) => Math.ceil(calls / (run.steps ?? calls));

/** The last frame of a column that it has reached after so many network calls. */
const frame = (column, place) =>
  column.run.frames.findLast((_, k) => (k === column.run.steps ? column.calls : k * each(column)) <= place);

export class Strip {
  /**
   * `told(place)` hears of every move, `retry()` asks again, `text(place, calls, t)` is read out, and `note(column,
   * frame)` stands below a column. `across(count)` says how many pictures of a column are side by side.
   */
  constructor({ told, retry, text, label = "Network calls", note = () => "", across = () => 1 }) {
    Object.assign(this, { columns: [], values: null, note, across, done: "" });
    this.follow = follower((place) => this.show(place));
    this.hear = this.hear.bind(this);
    this.status = status(retry);
    this.element = h("div", { class: "strip" });
    this.clock = timeline({
      label,
      told: (place) => told(place === this.calls ? END : place),
      text: (place) => {
        const shown = this.columns.length && frame(this.columns[0], place);
        return shown ? text(place, this.calls, shown.t) : "";
      },
    });
    this.parts = [this.status.element, this.element, this.clock.element];
  }

  get runs() {
    return this.columns.map(({ run }) => run);
  }

  /** Network calls that each column takes. */
  get calls() {
    return this.columns[0]?.calls ?? 0;
  }

  get ended() {
    return this.runs.every(({ state }) => state === "done");
  }

  /** How many network calls all columns have got to; -1 before the first frames. */
  get reached() {
    const got = (column) => (column.run.state === "done" ? column.calls : column.run.last * each(column));
    return Math.min(...this.columns.map(got));
  }

  start() {
    this.runs.forEach((run) => run.start());
  }

  show(place) {
    this.element.parentElement.classList.toggle("stale", this.reached < 0);
    this.clock.show(Math.max(place, 0), this.calls);
    for (const column of this.columns) {
      const shown = frame(column, place);
      if (!shown) continue;
      column.panel.paint(shown[this.values.show], column.request.n);
      column.panel.note(this.note(column, shown));
    }
  }

  /** After something has come. */
  hear() {
    this.status.runs(this.runs, this.done);
    if (this.values.place === END) this.follow.chase(this.reached, this.ended);
    else this.show(Math.min(this.values.place, this.reached));
  }

  /** Turns to other columns, unless they are the same; what is finished is shown from its end. `values` are those of
   * the view, with `place` and `show`; `done` is said when all columns are. */
  take(columns, values, done = "") {
    Object.assign(this, { values, done });
    if (columns.length !== this.columns.length || columns.some(({ run }, i) => run !== this.runs[i])) {
      this.leave();
      this.columns = columns;
      this.element.replaceChildren(...columns.map((column) => this.column(column)));
    }
    if (!columns.length) return;
    if (this.ended && values.place === END) this.follow.reset(this.calls);
    this.show(values.place === END ? this.follow.shown : Math.min(values.place, this.reached));
    this.hear();
  }

  column(column) {
    const { name, caption = name } = column;
    column.panel = panel({ caption, columns: this.across, label: `Pictures, ${name ?? caption}` });
    column.run.listeners.add(this.hear);
    return column.panel.element;
  }

  leave() {
    this.clock.stop();
    this.follow.reset();
    for (const run of this.runs) {
      run.listeners.delete(this.hear);
      run.stop();
    }
  }
}
