// Storing a ranking: nothing a person ranked is lost when the server is away for a while.

import { ApiError, call } from "./api.js";
import { drafts, randomId } from "./dom.js";
import { placed, rankOf } from "./order.js";
import { rankingFrom } from "./turns.js";

const RETRY_MS = 2000;

/** The request for an order of shown positions; sent again unchanged it is stored once. */
export function rankingRequest(turn, order, isAllBad) {
  const ranks = {};
  for (const reply of turn.replies) {
    const rank = rankOf(order, reply.shown);
    if (rank !== null) ranks[reply.id] = rank;
  }
  const body = { ranks, idempotency_key: randomId() };
  if (isAllBad) body.all_bad = true;
  return body;
}

/**
 * Store a ranking, trying again while the server cannot be reached. `isWanted` is asked before
 * each new try; `onwait` hears that one failed. Returns `{ranking, receipt}`, or null when it is
 * no longer wanted. Raises ApiError when the server refuses it.
 */
export async function storeRanking(turn, body, { isWanted, onwait }) {
  for (;;) {
    try {
      const answer = await call("POST", `/api/turns/${turn.id}/ranking`, body);
      const ranking = rankingFrom({ ranks: body.ranks, all_bad: body.all_bad, ...answer });
      return { ranking, receipt: receiptText(answer, body.all_bad ?? false) };
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
  const parts = [`${answer.revision ? "Changed to" : "Saved"} ${isAllBad ? "all bad" : answer.order}`];
  if (!isAllBad) parts.push(answer.comparisons === 1 ? "1 pair" : `${answer.comparisons} pairs`);
  if (answer.next_refit_in > 0) parts.push(`${answer.next_refit_in} to the next refit`);
  else if (answer.next_refit_in === 0) parts.push("the next refit is due");
  return parts.join(" - ");
}

// --- orders that are not stored yet -------------------------------------------------------------

/** Keep an order over a reload of the page; null forgets it. */
export function keepDraft(turn, draft, isBad) {
  drafts.write(`order:${turn.id}`, draft ? JSON.stringify({ draft, isBad }) : "");
}

/** The order that was kept for a turn, as `{draft, isBad}`; empty when there is none. */
export function readDraft(turn) {
  try {
    const kept = JSON.parse(drafts.read(`order:${turn.id}`));
    const known = turn.replies.map((reply) => reply.shown);
    return placed(kept.draft).every((shown) => known.includes(shown)) ? kept : {};
  } catch {
    return {};
  }
}
