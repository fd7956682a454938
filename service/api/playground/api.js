// What the pages ask the server. All addresses are relative: it may live below a path.

let key = "";

/** Send this key with every request from now on; it is kept nowhere else. */
export function useKey(value) {
  key = value.trim();
}

export const hasKey = () => key !== "";

/** The server's refusal, in its own words. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Return the response to a request; raise a Refusal for every status from 400 on. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server cannot be reached.");
  }
  if (!response.ok) throw new Refusal(response.status, await detailOf(response));
  return response;
}

async function detailOf(response) {
  const text = await response.text();
  try {
    const content = JSON.parse(text);
    return content.detail ?? content.error ?? text;
  } catch {
    return text || `status ${response.status}`;
  }
}

export async function listModels() {
  return (await (await ask("models")).json()).models;
}

export async function describeModel(name) {
  return (await ask(`models/${encodeURIComponent(name)}?examples=true`)).json();
}

/** Return the address that predicts, relative to the page. */
export function predictPath(model, maxError) {
  const query = maxError === null ? "" : `?max_error=${maxError}`;
  return `predict/${encodeURIComponent(model)}${query}`;
}

/** Return the answer to one row, and how many milliseconds each stage of it took. */
export async function predict(path, payload, signal) {
  const started = performance.now();
  const headers = { "Content-Type": payload.type };
  const response = await ask(path, { method: "POST", headers, body: payload.body, signal });
  const answer = await response.json();
  const stages = timing(response.headers.get("Server-Timing") ?? "");
  return { ...answer, stages, roundTripMs: performance.now() - started };
}

function timing(header) {
  const pairs = header.split(",").map((part) => /^\s*(\w+);dur=([\d.]+)/.exec(part));
  return Object.fromEntries(pairs.filter(Boolean).map(([, name, ms]) => [name, Number(ms)]));
}
