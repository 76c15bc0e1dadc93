/** A streamed request and all its frames, kept so that going through them, or coming back, costs no call. */

import { ServerError, answer, events, patiently } from "./server.js";

const KEPT = 60; // runs
const runs = new Map(); // what was asked -> Run, the latest last

/** A picture of the server, ready to be drawn. */
async function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

/** Some pictures side by side, as the server's sprites are. */
function sprite(images) {
  const canvas = new OffscreenCanvas(
    images.reduce((sum, image) => sum + image.width, 0),
    images[0].height,
  );
  const context = canvas.getContext("2d");
  images.forEach((image, i) => context.drawImage(image, i * image.width, 0));
  return canvas;
}

export class Run {
  constructor(path, fields) {
    Object.assign(this, { path, fields, frames: [], listeners: new Set(), aborter: null });
    this.state = "new"; // then waiting, running, done or failed
    this.error = null;
  }

  /** Hears of every frame and every change of state. */
  tell() {
    this.listeners.forEach((listener) => listener(this));
  }

  become(state, error = null) {
    Object.assign(this, { state, error });
    this.tell();
  }

  get last() {
    return this.frames.length - 1;
  }

  /** Asks the server, again and again while it only says wait. */
  async start() {
    if (["waiting", "running", "done"].includes(this.state)) return;
    const { signal } = (this.aborter = new AbortController());
    const attempt = () => {
      this.frames = [];
      this.become("running");
      return this.read(signal);
    };
    try {
      await patiently(attempt, (error) => this.become("waiting", error), signal);
      this.become("done");
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ServerError)) reportError(error);
      this.become("failed", error);
    }
  }

  async read(signal) {
    const images = [];
    for await (const event of events(this.path, { fields: this.fields, signal })) {
      if (event.type.endsWith("partial_image")) await this.add(event, signal);
      else images.push({ ...event, image: await decode(event.b64_json) });
      this.tell();
    }
    if (!images.length) throw new ServerError("gone", "The server ended its answer without a picture.");
    this.end(images);
  }

  /** A state: x_t at t, and the x_0 that the network estimates from it. */
  async add(event, signal) {
    const [x_t, x_0] = await Promise.all([event.b64_json, event.x_0].map(decode));
    signal.throwIfAborted(); // by now the frames may be those of a later attempt
    const { t, step, steps, alpha = null, sigma = null, probabilities } = event;
    this.steps = steps;
    this.pad(step);
    this.frames.push({ t, alpha, sigma, probabilities, x_t, x_0 });
  }

  /** The server leaves out states that a slow reader has no time for: the one before stands for them. */
  pad(length) {
    while (this.frames.length && this.frames.length < length) this.frames.push(this.frames.at(-1));
  }

  /** The finished pictures, at t = 0. */
  end(images) {
    const picture = sprite(images.map(({ image }) => image));
    const probabilities = images[0].probabilities ? images.map((each) => each.probabilities) : undefined;
    const noisy = this.frames[0]?.sigma != null;
    this.nfe = images[0].nfe;
    this.pad(this.steps);
    this.frames.push({
      t: 0,
      alpha: noisy ? 1 : null,
      sigma: noisy ? 0 : null,
      probabilities,
      x_t: picture,
      x_0: picture,
    });
  }

  /** Nobody waits for it any more. */
  stop() {
    if (this.state === "done") return;
    this.aborter?.abort();
    this.become("new");
  }
}

/** A request that is answered at once, with pictures or numbers: `reply`, and a frame for each picture. */
export class Reply extends Run {
  async read(signal) {
    this.reply = await answer(this.path, { fields: this.fields, signal });
    const pictures = this.reply.data ?? [];
    this.steps = pictures.length - 1;
    this.frames = await Promise.all(pictures.map(async (each) => ({ ...each, x_t: await decode(each.b64_json) })));
  }
}

/** The run of what is asked: the one that is kept, or a new one. It has yet to be started. `name` stands for files. */
export function ask(path, fields, name = "", Kind = Run) {
  const key = JSON.stringify([path, fields, name]);
  const run = runs.get(key) ?? new Kind(path, fields);
  runs.delete(key);
  runs.set(key, run);
  const idle = [...runs].filter(([, { state }]) => state !== "waiting" && state !== "running");
  idle.slice(0, Math.max(runs.size - KEPT, 0)).forEach(([old]) => runs.delete(old));
  return run;
}

/** Fields of a request for all that a run shows. */
export const streamed = { stream: true, sprite: true, estimates: true, probabilities: true };

/** One digit of a model. */
export const sampled = (model, label, seed) =>
  ask("/v1/images/generations", {
    model,
    prompt: "",
    n: 1,
    label: Number(label),
    guidance_scale: 2,
    seed,
    ...streamed,
  });
