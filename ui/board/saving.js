// Storing a ranking: nothing a person ranked is lost when the server is away for a while.

import { ApiError, call } from "./api.js";
import { drafts, randomId } from "./dom.js";
import { placed, rankOf } from "./order.js";
import { rankingFrom } from "./turns.js";
import { say } from "./words.js";

const RETRY_MS = 2000;

/** The request for an order of shown positions; sent again unchanged it is stored once. */
export function rankingRequest(turn, order, isAllBad, { strength = null, comment = "" } = {}) {
  const ranks = {};
  for (const reply of turn.replies) {
    const rank = rankOf(order, reply.shown);
    if (rank !== null) ranks[reply.id] = rank;
  }
  const body = { ranks, idempotency_key: randomId() };
  if (isAllBad) body.all_bad = true;
  if (strength !== null) body.strength = strength;
  if (comment) body.comment = comment;
  return body;
}

/**
 * Store a ranking, trying again while the server cannot be reached. `isWanted` is asked before
 * each new try; `onwait` hears that one failed. Returns `{ranking, receipt, milliseconds}`, or null when it is
 * no longer wanted. `milliseconds` is how long the server took. Raises ApiError when the server refuses it.
 */
export async function storeRanking(turn, body, { isWanted, onwait }) {
  for (;;) {
    try {
      const answer = await call("POST", `/api/turns/${turn.id}/ranking`, body);
      const ranking = rankingFrom({ ranks: body.ranks, all_bad: body.all_bad, ...answer });
      const receipt = receiptText(answer, body.all_bad ?? false);
      return { ranking, receipt, milliseconds: answer.saved_in_ms ?? null };
    } catch (error) {
      if (!(error instanceof ApiError) || !error.isConnectionLost) throw error;
      onwait();
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      if (!isWanted()) return null;
    }
  }
}

/** Withdraw a ranking. Returns the one that is active again, or null. */
export async function withdrawRanking(ranking) {
  const answer = await call("DELETE", `/api/rankings/${ranking.id}`);
  return answer?.ranking ? rankingFrom(answer.ranking) : null;
}

/** "Saved 2>1>4>3 - 6 pairs - 11 to the next refit", of what the server stored. */
export function receiptText(answer, isAllBad) {
  const { order, comparisons, strength, next_refit_in: left } = answer;
  const parts = [orderText(answer.revision, isAllBad, order)];
  if (!isAllBad) parts.push(comparisons === 1 ? say("1 pair") : say("{n} pairs", { n: comparisons }));
  if (strength) parts.push(say("strength {n}", { n: strength }));
  if (answer.comment) parts.push(say("with a comment"));
  if (left > 0) parts.push(say("{n} to the next refit", { n: left }));
  else if (left === 0) parts.push(say("the next refit is due"));
  return parts.join(" - ");
}

function orderText(isRevision, isAllBad, order) {
  if (isAllBad) return isRevision ? say("Changed to all bad") : say("Saved all bad");
  return isRevision ? say("Changed to {order}", { order }) : say("Saved {order}", { order });
}

// --- orders that are not stored yet -------------------------------------------------------------

/** Keep `{draft, isBad, extras}` over a reload of the page; null forgets it. */
export function keepDraft(turn, kept) {
  drafts.write(`order:${turn.id}`, kept ? JSON.stringify(kept) : "");
}

/** What was kept for a turn; empty when there is nothing that fits it. */
export function readDraft(turn) {
  try {
    const kept = JSON.parse(drafts.read(`order:${turn.id}`));
    const known = turn.replies.map((reply) => reply.shown);
    const isFitting = kept.draft === null || placed(kept.draft).every((shown) => known.includes(shown));
    return isFitting ? kept : {};
  } catch {
    return {};
  }
}
