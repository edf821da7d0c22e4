// How a person likes to chat, kept in this browser: sampling, when to be asked, how replies look.
// A value that is not set leaves the choice to the server.

import { choices } from "./kept.js";

const KEY = "preferences";
const listeners = new Map();

let values = read();

function read() {
  try {
    const found = JSON.parse(choices.read(KEY) || "{}");
    return found !== null && typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

/** The value under a name; undefined where none is set. */
export function preference(name) {
  return values[name];
}

/** Set a value; undefined, null and "" take it back. */
export function prefer(name, value) {
  const isSet = value !== undefined && value !== null && value !== "" && value !== false;
  values = { ...values, [name]: isSet ? value : undefined };
  choices.write(KEY, JSON.stringify(values));
  for (const listener of listeners.get(name) ?? []) listener(values[name]);
}

/** Call `listener(value)` whenever the value under a name changes, also in another tab. */
export function onPreference(name, listener) {
  listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

addEventListener("storage", (event) => {
  if (!event.key?.endsWith(`:${KEY}`)) return;
  const before = values;
  values = read();
  for (const [name, told] of listeners)
    if (before[name] !== values[name]) for (const listener of told) listener(values[name]);
});

const SAMPLING = ["temperature", "top_p", "max_new_tokens", "replies", "seed", "ask", "ask_one_in"];

/** The part of a turn's request that comes from here. */
export function wishes() {
  return Object.fromEntries(
    SAMPLING.filter((name) => values[name] !== undefined).map((name) => [name, values[name]]),
  );
}
