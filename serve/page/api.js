// Requests to the service, and what went wrong with them in words.

import { readEvents } from "./sse.js";

// Relative to this file, so that the page also works below a path of a gateway.
const ROOT = new URL("../", import.meta.url);

const WITHOUT_KEY =
  "The server wants an API key, and did not accept one from this browser. Reload the page: the browser asks for " +
  "a user name (any) and a password (the key).";

/** An error with a message for people; `field` names the field of the request it is about, if any. */
export class Problem extends Error {
  constructor({ message, field = null }, status = null) {
    super(message);
    this.field = field;
    this.status = status;
  }
}

/** The path of an item's image on this server, whatever host the item came from. */
export const imageUrl = (itemId) => new URL(`v1/items/${encodeURIComponent(itemId)}/image`, ROOT).href;

/** Yields the events of an answer: sources, token ..., done. Throws Problem. */
export async function* streamAnswer(question, signal) {
  const response = await send("POST", "v1/answer", { body: { ...question, stream: true }, signal });
  try {
    for await (const { name, data } of readEvents(response.body)) {
      if (name === "error") throw new Problem(data.error);
      yield { name, data };
      if (name === "done") return;
    }
  } catch (error) {
    throw known(error);
  }
  throw new Problem({ message: "The connection ended before the answer did. Ask again." });
}

export async function listItems(parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return json(await send("GET", `v1/items?${new URLSearchParams(given)}`, { signal }));
}

export async function getItem(itemId) {
  return json(await send("GET", `v1/items/${encodeURIComponent(itemId)}`));
}

/** Adds one item; returns {item_id, status}. The key makes a second try of the same request harmless. */
export async function addItem(item, key) {
  const headers = { "Idempotency-Key": key };
  return (await json(await send("POST", "v1/items", { body: { items: [item] }, headers }))).items[0];
}

export async function deleteItem(itemId) {
  await send("DELETE", `v1/items/${encodeURIComponent(itemId)}`);
}

export async function getImage(itemId) {
  return (await send("GET", imageUrl(itemId))).blob();
}

async function send(method, path, { body, headers = {}, signal } = {}) {
  const options = { method, signal, headers: { ...headers } };
  if (body) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  try {
    const response = await fetch(new URL(path, ROOT), options);
    if (!response.ok) throw await refusal(response);
    return response;
  } catch (error) {
    throw known(error);
  }
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    throw known(error);
  }
}

/** What fetch throws as a Problem, apart from an abort, which is no problem. */
function known(error) {
  if (error instanceof Problem || error.name === "AbortError") return error;
  return new Problem({ message: "The service cannot be reached. Is it running, and is the network up?" });
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error ?? { message: `The server answered with status ${response.status} and no explanation.` };
  if (response.status === 401) return new Problem({ message: WITHOUT_KEY }, 401);
  const wait = response.headers.get("Retry-After");
  const advice = wait && /^\d+$/.test(wait) ? ` (${response.status}; the server asks to wait ${wait} s)` : "";
  return new Problem({ message: sentence(error.message) + advice, field: error.field }, response.status);
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
