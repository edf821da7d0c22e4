// The only module that talks to the server: JSON calls, and the event stream of a turn.

import { say } from "./words.js";

/** A refusal by the server, or (status 0) no answer at all. The message is for people. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** True when the server could not be reached, so that the same call may work later. */
  get isConnectionLost() {
    return this.status === 0 || this.status === 502 || this.status === 504;
  }
}

/** The sentence for a person about any failed call. */
export function messageOf(error) {
  if (error instanceof ApiError) return error.message;
  console.error(error);
  return say("The page failed: {reason}. Reload it; what you typed is kept.", { reason: error.message });
}

function lost(status = 0) {
  const text = say("The server does not answer. Nothing you typed is lost; it will be tried again.");
  return new ApiError(status, "connection_lost", text);
}

// The page may be mounted below a prefix by a proxy; every address is relative to its base.
function address(path) {
  return new URL(path.replace(/^\//, ""), new URL(".", document.baseURI));
}

async function request(method, path, body, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers,
      body: options.raw ?? (body === undefined ? undefined : JSON.stringify(body)),
      cache: "no-store",
      signal: options.signal,
      keepalive: options.keepalive ?? false,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw lost();
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // Not our server's answer: a proxy's page, or nothing.
  }
  if (error?.code === "not_signed_in") leaveForLogin();
  if (error?.message) return new ApiError(response.status, error.code, error.message);
  if (response.status === 502 || response.status === 504)
    return lost(response.status);
  return new ApiError(
    response.status,
    "error",
    say("The server answered with status {status}. Try again.", { status: response.status }),
  );
}

// The session has ended. The place (`#c=7`) is kept, and so are drafts, for when they are back.
function leaveForLogin() {
  if (document.body.classList.contains("login")) return;
  location.assign(new URL(location.hash, address("login")));
}

/** Call the API and return its JSON. Raises ApiError; `options.signal` aborts. */
export async function call(method, path, body, options) {
  const response = await request(method, path, body, options);
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw lost();
  }
}

/** The items of a list answer, whether bare or wrapped as `{name: [...]}`. */
export function listOf(answer, name) {
  return Array.isArray(answer) ? answer : (answer?.[name] ?? []);
}

/** Open an event stream and yield `{event, data}`. Raises ApiError when it breaks. */
export async function* stream(method, path, body, signal) {
  yield* eventsOf(await request(method, path, body, { signal, headers: { Accept: "text/event-stream" } }));
}

/** Send a file as it is, and yield the events of the answer. Raises ApiError when it breaks. */
export async function* upload(path, file, signal) {
  const headers = { Accept: "text/event-stream", "Content-Type": "application/octet-stream" };
  yield* eventsOf(await request("POST", path, undefined, { signal, headers, raw: file }));
}

/** An answer of which the bytes are read as they come. Raises ApiError when it is refused. */
export function download(path, signal) {
  return request("GET", path, undefined, { signal, headers: { Accept: "*/*" } });
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (buffer + value).replaceAll("\r\n", "\n").split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw lost();
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
