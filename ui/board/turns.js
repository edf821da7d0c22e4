// Turns as the page holds them, and the tree they form: a turn continues from one reply of an
// earlier turn, and asking again makes a sibling.

import { fromRanks } from "./order.js";

/** A turn from the API's JSON. `shown` is the number on a reply's card, from 1. */
export function turnFrom(json) {
  const replies = [...json.replies]
    .sort((a, b) => a.position - b.position)
    .map((reply, index) => ({
      id: reply.id,
      shown: index + 1,
      text: reply.text ?? "",
      state: reply.state ?? "streaming",
      finishReason: reply.finish_reason ?? null,
      version: reply.version ?? null,
    }));
  return {
    id: json.id ?? json.turn_id,
    text: json.text,
    parentReplyId: json.parent_reply_id ?? null,
    replies,
    ranking: json.ranking ? rankingFrom(json.ranking) : null,
    demonstration: json.demonstration?.text ?? null,
  };
}

/** A stored ranking; `ranks` maps reply ids to ranks. */
export function rankingFrom(json) {
  return {
    id: json.ranking_id ?? json.id,
    ranks: json.ranks ?? null,
    order: json.order,
    comparisons: json.comparisons,
    allBad: json.all_bad ?? false,
  };
}

/** The stored ranking of a turn as an order of shown positions, or null. */
export function orderOf(turn) {
  if (!turn.ranking?.ranks) return null;
  const shown = {};
  for (const reply of turn.replies) {
    const rank = turn.ranking.ranks[reply.id];
    if (rank !== undefined && rank !== null) shown[reply.shown] = rank;
  }
  return fromRanks(shown);
}

export function isStreaming(turn) {
  return turn.replies.some((reply) => reply.state === "streaming");
}

/** Replies that may be ranked once they are done: an interrupted one never may. */
export function rankable(turn) {
  return turn.replies.filter((reply) => reply.state !== "interrupted");
}

/** The only top-ranked reply, or null when there is no ranking or the top is tied. */
export function topReply(turn) {
  if (!turn.ranking?.ranks || turn.ranking.allBad) return null;
  const first = turn.replies.filter((reply) => turn.ranking.ranks[reply.id] === 1);
  return first.length === 1 ? first[0] : null;
}

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

/** Turns that continue from the same reply, `turn` included, in the order they were asked. */
export function siblingsOf(turns, turn) {
  return turns.filter((other) => other.parentReplyId === turn.parentReplyId);
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

/** What a card says of a reply's end; empty while there is nothing to say. */
export function endOf(reply) {
  if (reply.state === "streaming") return "writing";
  if (reply.state === "interrupted") return "interrupted, cannot be ranked";
  if (reply.finishReason === "cancelled" || reply.state === "cancelled") return "cut";
  if (reply.finishReason === "length") return "stopped at the length limit";
  return "";
}
