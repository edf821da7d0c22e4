// Following a turn while its replies are written, across lost connections.

import { ApiError, call, stream } from "./api.js";
import { say } from "./words.js";

const RETRY_MS = 1500;

/**
 * Ask for a turn and follow it to its end. `on` hears started(json), asked(json: the turn
 * has more replies than it began with), restarted(), choosing(data),
 * delta(data), done(data), failed(message) and settled(turn json, or null when the server has
 * forgotten it).
 * Raises ApiError when the turn was never begun. Aborting `signal` ends it silently.
 */
export async function startTurn(conversationId, body, on, signal) {
  let turnId = null;
  const watch = { ...on, started: (json) => on.started(json, (turnId = json.turn_id)) };
  try {
    const isDone = await relay(
      stream("POST", `/api/conversations/${conversationId}/turns`, body, signal),
      watch,
    );
    if (isDone && turnId !== null) return await settle(turnId, on, signal);
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (turnId === null) throw error;
  }
  if (turnId === null)
    throw new ApiError(
      0,
      "connection_lost",
      say("The server closed the connection before it began. Try again."),
    );
  return followTurn(turnId, on, signal);
}

/** Follow a turn that was begun earlier, from its first word. */
export async function followTurn(turnId, on, signal) {
  for (;;) {
    try {
      let isFirst = true;
      const restarted = () => {
        if (isFirst) on.restarted();
        isFirst = false;
      };
      const events = stream("GET", `/api/turns/${turnId}/events`, undefined, signal);
      if (await relay(events, { ...on, started: () => {} }, restarted))
        return await settle(turnId, on, signal);
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      if (!(error instanceof ApiError)) throw error;
      if (!error.isConnectionLost) return settle(turnId, on, signal);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    if (signal.aborted) return undefined;
  }
}

/** Pass events on; true when the turn ended. */
async function relay(events, on, before = () => {}) {
  for await (const { event, data } of events) {
    before();
    if (event === "turn.started") on.started(data);
    else if (event === "turn.asked") on.asked?.(data);
    else if (event === "turn.choosing") on.choosing(data);
    else if (event === "reply.delta") on.delta(data);
    else if (event === "reply.done") on.done(data);
    else if (event === "turn.done") return true;
    else if (event === "error") {
      on.failed(data.error?.message ?? say("The replies could not be written. Ask again with R."));
      return true;
    }
  }
  return false;
}

/** What is stored is the truth: fetch it when the stream has ended. */
async function settle(turnId, on, signal) {
  for (;;) {
    try {
      return on.settled(await call("GET", `/api/turns/${turnId}`, undefined, { signal }));
    } catch (error) {
      if (error.name === "AbortError") return undefined;
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 404) return on.settled(null);
      if (!error.isConnectionLost) return on.failed(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
