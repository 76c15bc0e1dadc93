/** The server's API. What goes wrong is a ServerError that says what can be done about it. */

import { parse } from "./stream.js";

const KEY = "token"; // of a server that asks for one: kept until the tab is closed

export class ServerError extends Error {
  /** `kind`: gone (no answer), wait (try again in `wait` seconds), token (it asks for one), refused (it says why). */
  constructor(kind, message, wait = 0) {
    super(message);
    Object.assign(this, { name: "ServerError", kind, wait });
  }
}

export const useToken = (token) => sessionStorage.setItem(KEY, token);

/** The error of an answer that is none. */
async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? body.detail ?? `The server answered ${response.status}.`;
  const wait = Number(response.headers.get("Retry-After"));
  if (response.status === 401) return new ServerError("token", message);
  if ([429, 503].includes(response.status)) return new ServerError("wait", message, wait || 1);
  return new ServerError("refused", message);
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
      if (event.error) throw new ServerError("refused", event.error.message);
      yield event;
    }
  } catch (error) {
    throw ["AbortError", "ServerError"].includes(error.name) ? error : new ServerError("gone", "The server went away in the middle of an answer.");
  }
}

let known = null;

/** The models that can be asked for. */
export async function models() {
  known ??= (await answer("/v1/models")).data;
  return known;
}
