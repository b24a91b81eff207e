// Questions to the service, and where its pages are.

export const BASE = new URL(document.baseURI);

/** The address of a page or a resource beneath the place where the dashboard is mounted. */
export function address(path, query = {}) {
  const url = new URL(path.replace(/^\//, ""), BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
}

/** An error that is shown as a sentence; `left` names what was not done. */
export class Failure extends Error {
  constructor(status, detail, more = {}) {
    super(detail);
    this.status = status;
    this.more = more;
  }
}

const NO_ANSWER = "The service does not answer. Is the process running, and the network up?";

async function ask(method, path, { query, body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(address(path, query), {
      method,
      signal,
      credentials: "same-origin",
      headers: { accept: "application/json", "x-protoflow": "dashboard",
        ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, NO_ANSWER);
  }
  let content = null;
  try {
    content = await answer.json();
  } catch {
    throw new Failure(answer.status, `The answer is not JSON (status ${answer.status}).`);
  }
  if (answer.ok) return content;
  if (answer.status === 401) for (const called of signedOut) called();
  throw new Failure(answer.status, content.detail ?? `Status ${answer.status}.`, content);
}

const signedOut = new Set();

/** Calls when the session is over, or there is none. */
export const onSignedOut = (called) => signedOut.add(called);

export const get = (path, query, signal) => ask("GET", path, { query, signal });
export const post = (path, body, signal) => ask("POST", path, { body, signal });

/** Something that is asked for: its value, or why there is none. */
export class Resource {
  constructor(load, changed) {
    this.load = load;
    this.changed = changed;
    this.value = undefined;
    this.error = null;
    this.number = 0;
  }

  async reload() {
    const number = ++this.number;
    try {
      const value = await this.load();
      if (number !== this.number) return;
      this.value = value;
      this.error = null;
    } catch (error) {
      if (number !== this.number) return;
      this.error = error;
    }
    this.changed();
  }
}
