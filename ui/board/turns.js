// Turns as the page holds them. The tree they form is in branches.js.

import { fromRanks } from "./order.js";
import { say } from "./words.js";

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
      slotType: reply.slot_type ?? null,
      score: reply.score ?? null,
      labels: labelsFrom(reply.labels),
    }));
  return {
    id: json.id ?? json.turn_id,
    text: json.text,
    parentReplyId: json.parent_reply_id ?? null,
    replies,
    ranking: json.ranking ? rankingFrom(json.ranking) : null,
    demonstration: json.demonstration?.text ?? null,
    choice: json.choice ?? null, // {policy, candidates, note}
    progress: null, // of the candidates, while they are written: {written, scoring}
  };
}

/** The labels that a person gave, of the API's `{"toxic": true, "good": false}`. */
export function labelsFrom(json = {}) {
  return Object.keys(json).filter((label) => json[label]);
}

/** A stored ranking; `ranks` maps reply ids to ranks. */
export function rankingFrom(json) {
  return {
    id: json.ranking_id ?? json.id,
    ranks: json.ranks ?? null,
    order: json.order,
    comparisons: json.comparisons,
    allBad: json.all_bad ?? false,
    strength: json.strength ?? null,
    comment: json.comment ?? "",
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

/** Are candidates still written and scored, so that no reply is shown yet? */
export function isChoosing(turn) {
  if (!turn.choice || turn.choice.candidates <= turn.replies.length) return false;
  return turn.replies.every((reply) => reply.state === "streaming" && reply.text === "");
}

/** What became of the candidates, or how far they are; empty where there are none. */
export function choiceText(turn) {
  const { choice, replies, progress } = turn;
  if (!choice) return "";
  const numbers = { shown: replies.length, all: choice.candidates };
  if (isChoosing(turn)) {
    if (progress?.scoring) return say("Choosing {shown} of {all}: scoring them", numbers);
    return say("Choosing {shown} of {all}: {written} written", { ...numbers, written: progress?.written ?? 0 });
  }
  if (choice.note) return choice.note;
  return {
    random: say("{shown} of {all} candidates, picked at random", numbers),
    best: say("{shown} of {all} candidates, with the best scores", numbers),
    "best-and-random": say("{shown} of {all} candidates, the best and others at random", numbers),
  }[choice.policy];
}

/** Who made a reply and, where it was chosen by its score, why it is shown. */
export function madeBy(reply) {
  const parts = [reply.version];
  if (reply.score !== null) parts.push(reply.slotType, say("score {n}", { n: reply.score.toFixed(2) }));
  return parts.filter(Boolean).join(" - ");
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

/** What a card says of a reply's end; empty while there is nothing to say. */
export function endOf(reply) {
  if (reply.state === "streaming") return say("writing");
  if (reply.state === "interrupted") return say("interrupted, cannot be ranked");
  if (reply.finishReason === "cancelled" || reply.state === "cancelled") return say("cut");
  if (reply.finishReason === "length") return say("stopped at the length limit");
  return "";
}
