// The order a person gives the replies of one turn, and how it is stored: by itself when it is
// complete and the replies are done. Later changes, a strength or a comment amend it.

import { messageOf } from "./api.js";
import { pollHealth } from "./health.js";
import * as order from "./order.js";
import { keepDraft, rankingRequest, readDraft, storeRanking, withdrawRanking } from "./saving.js";
import { isChoosing, isStreaming, orderOf, rankable } from "./turns.js";
import { say } from "./words.js";

const AMEND_MS = 700; // several presses of + are one amendment
const MIDDLE = 3; // of the strengths 1 to 5: what a ranking without one stands for

export class Ranking {
  /** `hooks`: changed(), failed(message), stored() and withdrawn() of what counts now. */
  constructor(turn, hooks) {
    this.turn = turn;
    this.hooks = hooks;
    this.saved = orderOf(turn);
    const kept = readDraft(turn);
    this.draft = kept.draft ?? null; // an order that is not stored yet
    this.isDraftBad = kept.isBad ?? false;
    this.extras = kept.extras ?? extrasOf(turn.ranking); // {strength, comment}
    this.receipt = turn.ranking ? storedText(turn.ranking) : "";
    this.milliseconds = null; // that the server took to store it
    this.saving = "no"; // no, soon, yes, waiting (for the server), refused
    this.sent = null;
    this.chain = Promise.resolve();
  }

  get positions() {
    return rankable(this.turn).map((reply) => reply.shown);
  }

  /** The order on the cards: the draft, else what is stored. */
  get shownOrder() {
    return this.draft ?? this.saved;
  }

  get isPartial() {
    return this.draft !== null && !order.isComplete(this.draft, this.positions);
  }

  get isComplete() {
    return this.shownOrder !== null && order.isComplete(this.shownOrder, this.positions);
  }

  get isBad() {
    return this.draft ? this.isDraftBad : (this.turn.ranking?.allBad ?? false);
  }

  /** Keep what is not stored over a reload. */
  keep() {
    const isWritten = this.draft !== null || this.#hasNewExtras();
    keepDraft(this.turn, isWritten ? { draft: this.draft, isBad: this.isDraftBad, extras: this.extras } : null);
  }

  // --- the order ------------------------------------------------------------------------------

  place(shown) {
    this.#draw(order.place(this.shownOrder ?? order.EMPTY, shown, this.positions));
  }

  /** Put a reply at a rank, as dragging does. */
  putAt(shown, rank) {
    this.#draw(order.putAt(this.shownOrder ?? order.EMPTY, shown, rank, this.positions));
  }

  tie() {
    if (!isChoosing(this.turn)) this.#draw(order.toggleTie(this.shownOrder ?? order.EMPTY));
  }

  restEqual() {
    if (this.isPartial) this.#draw(order.restEqual(this.draft, this.positions));
  }

  allBad() {
    if (this.positions.length > 1 && !isChoosing(this.turn)) this.#draw(order.allEqual(this.positions), true);
  }

  /** Replies that can no longer be ranked leave the order. */
  narrow() {
    if (this.draft) this.draft = order.only(this.draft, this.positions);
  }

  #draw(next, isBad = false) {
    if (next === this.shownOrder || (order.isEmpty(next) && !this.draft)) return;
    this.#setDraft(next, isBad);
    this.submitWhenDone();
  }

  #setDraft(next, isBad) {
    const isStored = this.saved && order.isSame(next, this.saved) && isBad === this.turn.ranking.allBad;
    this.draft = order.isEmpty(next) || isStored ? null : next;
    this.isDraftBad = isBad;
    this.saving = "no";
    this.hooks.changed();
  }

  /** Back to what is stored; false when there was no draft. */
  dropDraft() {
    if (!this.draft) return false;
    this.extras = extrasOf(this.turn.ranking);
    this.#setDraft(order.EMPTY, false);
    return true;
  }

  /** Take back the last key, or the stored ranking when there is no draft. */
  async undo() {
    if (this.saving === "yes") await this.chain;
    if (this.saving === "soon") this.dropDraft();
    else if (this.draft) {
      this.#setDraft(this.isDraftBad ? order.EMPTY : order.takeBack(this.draft), false);
    } else if (this.turn.ranking) {
      this.chain = this.#withdraw();
      await this.chain;
    }
  }

  async #withdraw() {
    try {
      const active = await withdrawRanking(this.turn.ranking);
      this.turn.ranking = null;
      this.saved = null;
      if (!active) this.hooks.withdrawn();
      this.receipt = say("Taken back. Nothing is stored for this turn.");
      if (active) {
        this.store(active);
        this.receipt = active.allBad
          ? say("Taken back. All bad is stored again.")
          : say("Taken back. {order} is stored again.", { order: active.order });
      }
      this.extras = extrasOf(active);
      pollHealth();
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
    this.hooks.changed();
  }

  // --- strength and comment -------------------------------------------------------------------

  /** One stronger (+1) or weaker (-1), between 1 and 5. */
  strengthen(step) {
    const strength = Math.min(5, Math.max(1, (this.extras.strength ?? MIDDLE) + step));
    this.#amend({ ...this.extras, strength });
  }

  comment(text) {
    this.#amend({ ...this.extras, comment: text.trim() });
  }

  /** Store new extras: with the order that is being drawn, else as a revision of what is stored. */
  #amend(extras) {
    this.extras = extras;
    const isDrawn = this.draft !== null && this.saving !== "soon";
    if (!isDrawn && this.turn.ranking && this.#hasNewExtras()) {
      this.draft = this.saved;
      this.isDraftBad = this.turn.ranking.allBad;
      this.saving = "soon";
      clearTimeout(this.amending);
      this.amending = setTimeout(() => {
        if (this.saving === "soon") this.retry();
      }, AMEND_MS);
    } else if (this.saving === "soon") {
      this.draft = null;
      this.saving = "no";
    }
    this.hooks.changed();
  }

  #hasNewExtras() {
    const stored = extrasOf(this.turn.ranking);
    return stored.strength !== this.extras.strength || stored.comment !== this.extras.comment;
  }

  // --- saving ---------------------------------------------------------------------------------

  submitWhenDone() {
    if (!this.draft || isStreaming(this.turn) || !order.isComplete(this.draft, this.positions)) return;
    // After a refusal a person decides, with Try again; an amendment comes in a moment.
    if (this.saving === "refused" || this.saving === "soon") return;
    if (this.sent === this.draft || (this.draft.tieNext && this.saved)) return;
    this.retry();
  }

  /** Send the complete order that is on the cards. Orders are sent one after another. */
  retry() {
    const draft = this.draft;
    this.sent = draft;
    const body = rankingRequest(this.turn, draft, this.isDraftBad, this.extras);
    this.saving = "yes";
    this.hooks.changed();
    this.chain = this.chain.then(() => this.#send(draft, body));
  }

  async #send(draft, body) {
    const isWanted = () => this.draft === draft;
    try {
      const onwait = () => {
        this.saving = "waiting";
        this.hooks.changed();
      };
      const stored = await storeRanking(this.turn, body, { isWanted, onwait });
      if (!stored) return;
      this.store(stored.ranking, draft);
      this.receipt = stored.receipt;
      this.milliseconds = stored.milliseconds;
      if (isWanted()) {
        this.draft = null;
        this.saving = "no";
        this.sent = null;
      }
      this.hooks.changed();
      pollHealth();
      await this.hooks.stored();
    } catch (error) {
      if (isWanted()) {
        this.saving = "refused";
        this.sent = null;
        this.hooks.failed(say("Not saved: {reason}", { reason: messageOf(error) }));
      }
    }
    this.hooks.changed();
  }

  /** What is stored now. */
  store(ranking, sent = this.saved) {
    this.turn.ranking = ranking;
    const stored = orderOf(this.turn);
    // The order as it was given also knows which reply followed by itself: '=' may still tie it.
    this.saved = sent && stored && order.isSame(sent, stored) ? sent : stored;
  }

  /** The server's word on what is stored, unless something is on its way there. */
  refresh(ranking) {
    if (this.saving !== "no" || !ranking) return;
    const isKnown = this.turn.ranking?.id === ranking.id;
    this.store(ranking);
    if (!isKnown && !this.draft) this.extras = extrasOf(ranking);
  }
}

function extrasOf(ranking) {
  return { strength: ranking?.strength ?? null, comment: ranking?.comment ?? "" };
}

function storedText(ranking) {
  const parts = [
    ranking.allBad ? say("Stored: all bad") : say("Stored: {order}", { order: ranking.order }),
    ranking.strength ? say("strength {n}", { n: ranking.strength }) : "",
    ranking.comment ? say("with a comment") : "",
  ];
  return parts.filter(Boolean).join(" - ");
}
