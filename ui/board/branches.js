// The tree that turns form: a turn continues from one reply of an earlier turn. Asking again,
// editing a message and going on from another reply each begin a branch.

import { topReply } from "./turns.js";

/** The turns that lead to `leaf`, oldest first, `leaf` included. */
export function pathTo(turns, leaf) {
  const path = [];
  for (let turn = leaf; turn; turn = ownerOf(turns, turn.parentReplyId)) path.unshift(turn);
  return path;
}

function ownerOf(turns, replyId) {
  if (replyId === null) return null;
  return turns.find((turn) => turn.replies.some((reply) => reply.id === replyId)) ?? null;
}

/** Turns that continue from a reply of the same turn, `turn` included, in the order they were asked. */
export function siblingsOf(turns, turn) {
  const owner = ownerOf(turns, turn.parentReplyId);
  return turns.filter((other) => ownerOf(turns, other.parentReplyId) === owner);
}

/** The newest turn at or below `turn`. */
export function newestBelow(turns, turn) {
  const below = turns.filter((other) => pathTo(turns, other).includes(turn));
  return below.at(-1) ?? turn;
}

/** The reply from which the next turn of a path goes on, or null. */
export function continuedFrom(path, turn) {
  const next = path[path.indexOf(turn) + 1];
  return next ? (turn.replies.find((reply) => reply.id === next.parentReplyId) ?? null) : null;
}

/** From where a turn goes on when nobody says: its top reply, else one picked by its id. */
export function continuation(turn) {
  const usable = turn.replies.filter((reply) => reply.state === "complete");
  return topReply(turn) ?? usable[turn.id % usable.length] ?? turn.replies[0];
}
