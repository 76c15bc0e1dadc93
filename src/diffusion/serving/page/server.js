/** The server's API. What goes wrong is a ServerError that says what can be done about it. */

import { parse } from "./stream.js";

const KEY = "token"; // of a server that asks for one: kept until the tab is closed

export class ServerError extends Error {
  /** `kind`: gone (no answer), wait (asks to come again in `wait` seconds), token (asks for one), refused, failed. */
  constructor(kind, message, wait = 0) {
    super(message);
    Object.assign(this, { name: "ServerError", kind, wait });
  }
}

export const useToken = (token) => sessionStorage.setItem(KEY, token);

/** What the server says, as a sentence. */
const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}`.replace(/[^.!?…]$/, "$&.");

/** The error of an answer that is none. */
async function refusal(response) {
  const { status } = response;
  const body = await response.json().catch(() => ({}));
  const message = sentence(body.error?.message ?? `the server answered ${status}`);
  const wait = Number(response.headers.get("Retry-After")) || 1;
  if (status === 401) return new ServerError("token", "This server asks for its token.");
  if (status === 429) return new ServerError("wait", "The queue is full.", wait);
  if (status === 503) return new ServerError("wait", message, wait);
  return new ServerError(status < 500 ? "refused" : "failed", message);
}

/** A response with a body to read; `fields` are sent as JSON, or as a form if one of them is a file. */
async function ask(path, { fields, signal } = {}) {
  const headers = {};
  if (sessionStorage.getItem(KEY)) headers.Authorization = `Bearer ${sessionStorage.getItem(KEY)}`;
  const request = { headers, signal };
  if (fields) {
    const given = Object.entries(fields).filter(([, value]) => value !== null);
    request.method = "POST";
    if (given.some(([, value]) => value instanceof Blob)) {
      request.body = new FormData();
      for (const [name, value] of given) request.body.append(name, value);
    } else {
      request.body = JSON.stringify(Object.fromEntries(given));
      headers["Content-Type"] = "application/json";
    }
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError("gone", "The server does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The answer to a request. */
export const answer = async (path, options) => (await ask(path, options)).json();

/** The events of a streamed answer, as they come. */
export async function* events(path, options) {
  const response = await ask(path, options);
  try {
    for await (const event of parse(response.body)) {
      if (event.error) throw new ServerError("failed", sentence(event.error.message));
      yield event;
    }
  } catch (error) {
    throw ["AbortError", "ServerError"].includes(error.name)
      ? error
      : new ServerError("gone", "The server went away in the middle of an answer.");
  }
}

let tell = null;

/** The models that can be asked for, as soon as anybody has asked. */
export const known = new Promise((resolve) => (tell = resolve));

let all = null;

/** The same; the server is asked once. */
export const models = async () => {
  all ??= (await answer("/v1/models")).data;
  tell(all);
  return all;
};

/** What `work` comes to, tried again and again while the server only says wait; `told(error)` hears of each wait. */
export async function patiently(work, told, signal = null) {
  while (true) {
    try {
      return await work();
    } catch (error) {
      if (error.kind !== "wait" || signal?.aborted) throw error;
      told(error);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.wait));
      signal?.throwIfAborted();
    }
  }
}
