// The board of one turn: its replies side by side, and the order a person gives them. It is saved
// by itself when the order is complete and the replies are done; later changes amend it.

import { call, messageOf } from "./api.js";
import { Card } from "./card.js";
import { Demonstration } from "./demonstration.js";
import { el } from "./dom.js";
import { moveFocus } from "./focus.js";
import { pollHealth } from "./health.js";
import * as order from "./order.js";
import { keepDraft, rankingRequest, readDraft, storeRanking, withdrawRanking } from "./saving.js";
import { isStreaming, orderOf, rankable, turnFrom } from "./turns.js";

export class Board {
  /** `hooks`: changed(board), activated(board), failed(message), enlarged(board, shown). */
  constructor(turn, hooks) {
    this.turn = turn;
    this.hooks = hooks;
    this.saved = orderOf(turn);
    const { draft = null, isBad = false } = readDraft(turn);
    this.draft = draft; // an order that is not stored yet
    this.isDraftBad = isBad;
    this.receipt = turn.ranking ? storedText(turn.ranking) : "";
    this.saving = "no"; // no, yes, waiting (for the server), refused
    this.isCutting = false;
    this.isCurrent = true; // the newest turn of its conversation
    this.sent = null;
    this.chain = Promise.resolve();
    this.cards = turn.replies.map(
      (reply) =>
        new Card(reply, { onpick: (shown) => this.pick(shown), oncut: (shown) => this.cut(shown) }),
    );
    this.grid = el(
      "div",
      {
        class: "board",
        role: "listbox",
        tabindex: "-1",
        "aria-multiselectable": "true",
        "aria-label": "Replies, to be ranked best first",
        "data-testid": "board",
        "data-count": turn.replies.length,
        onkeydown: (event) => moveFocus(this.grid, event),
        onfocusin: () => hooks.activated(this),
      },
      this.cards.map((card) => card.element),
    );
    this.demonstration = new Demonstration(turn, () => this.#changed());
    this.element = el("div", { class: "board-area" }, this.grid, this.demonstration.element);
    this.cards[0]?.element.setAttribute("tabindex", "0");
    this.#changed();
    this.#submitWhenDone();
  }

  // --- what is shown --------------------------------------------------------------------------

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

  get isWriting() {
    return isStreaming(this.turn);
  }

  #changed() {
    const isBad = this.draft ? this.isDraftBad : (this.turn.ranking?.allBad ?? false);
    for (const card of this.cards) card.show(this.shownOrder, isBad);
    this.grid.classList.toggle(
      "is-ranked",
      this.shownOrder !== null && order.isComplete(this.shownOrder, this.positions),
    );
    this.grid.classList.toggle("is-cutting", this.isCutting);
    this.grid.setAttribute("aria-busy", String(this.isWriting));
    keepDraft(this.turn, this.draft, this.isDraftBad);
    this.hooks.changed(this);
  }

  // --- the stream -----------------------------------------------------------------------------

  /** The stream begins (again): it repeats all text so far. */
  restart() {
    for (const card of this.cards) if (card.reply.state === "streaming") card.finish("");
  }

  addText(replyId, text) {
    const card = this.#cardOf(replyId);
    if (card?.reply.state === "streaming") card.add(text);
  }

  finishReply(replyId, { text, finish_reason: reason, version }) {
    const card = this.#cardOf(replyId);
    if (!card) return;
    card.finish(text);
    card.reply.finishReason = reason;
    card.reply.version = version ?? card.reply.version;
    card.reply.state = { cancelled: "cancelled", interrupted: "interrupted" }[reason] ?? "complete";
    if (card.reply.state === "interrupted" && this.draft)
      this.draft = order.only(this.draft, this.positions);
    this.#changed();
    this.#submitWhenDone();
  }

  /** Take over what the server knows of this turn: texts, ends, versions, the ranking. */
  update(json) {
    const fresh = turnFrom(json);
    for (const reply of fresh.replies) {
      const card = this.#cardOf(reply.id);
      if (!card) continue;
      card.finish(reply.text);
      Object.assign(card.reply, {
        state: reply.state,
        finishReason: reply.finishReason,
        version: reply.version,
      });
    }
    this.turn.demonstration = fresh.demonstration;
    if (this.saving !== "yes" && fresh.ranking) this.#store(fresh.ranking);
    this.#changed();
    this.#submitWhenDone();
  }

  #cardOf(replyId) {
    return this.cards.find((card) => card.reply.id === replyId);
  }

  // --- ranking --------------------------------------------------------------------------------

  /** Give the reply at a shown position the next rank, or cut it when X was pressed. */
  pick(shown) {
    this.hooks.activated(this);
    if (this.isCutting) return this.cut(shown);
    return this.#draw(order.place(this.shownOrder ?? order.EMPTY, shown, this.positions));
  }

  tie() {
    this.#draw(order.toggleTie(this.shownOrder ?? order.EMPTY));
  }

  restEqual() {
    if (this.isPartial) this.#draw(order.restEqual(this.draft, this.positions));
  }

  allBad() {
    if (this.positions.length > 1) this.#draw(order.allEqual(this.positions), true);
  }

  #draw(next, isBad = false) {
    if (next === this.shownOrder || (order.isEmpty(next) && !this.draft)) return;
    this.#setDraft(next, isBad);
    this.#submitWhenDone();
  }

  #setDraft(next, isBad) {
    const isStored = this.saved && order.isSame(next, this.saved) && isBad === this.turn.ranking.allBad;
    this.draft = order.isEmpty(next) || isStored ? null : next;
    this.isDraftBad = isBad;
    this.saving = "no";
    this.#changed();
  }

  /** Back to what is stored; false when there was no draft. */
  dropDraft() {
    if (this.isCutting) {
      this.isCutting = false;
      this.#changed();
      return true;
    }
    if (!this.draft) return false;
    this.#setDraft(order.EMPTY, false);
    return true;
  }

  /** Take back the last key, or the stored ranking when there is no draft. */
  async undo() {
    if (this.saving === "yes") await this.chain;
    if (this.draft) {
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
      if (!active) for (const reply of this.turn.replies) reply.version = null; // blind again
      this.receipt = "Taken back. Nothing is stored for this turn.";
      if (active) {
        this.#store(active);
        this.receipt = `Taken back. ${active.allBad ? "All bad" : active.order} is stored again.`;
      }
      pollHealth();
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
    this.#changed();
  }

  // --- saving ---------------------------------------------------------------------------------

  #submitWhenDone() {
    if (!this.draft || this.isWriting || !order.isComplete(this.draft, this.positions)) return;
    if (this.saving === "refused") return; // a person decides, with Try again
    if (this.sent === this.draft || (this.draft.tieNext && this.saved)) return;
    this.retry();
  }

  /** Send the complete order that is on the cards. Orders are sent one after another. */
  retry() {
    const draft = this.draft;
    this.sent = draft;
    const body = rankingRequest(this.turn, draft, this.isDraftBad);
    this.saving = "yes";
    this.#changed();
    this.chain = this.chain.then(() => this.#send(draft, body));
  }

  async #send(draft, body) {
    const isWanted = () => this.draft === draft;
    try {
      const onwait = () => {
        this.saving = "waiting";
        this.#changed();
      };
      const stored = await storeRanking(this.turn, body, { isWanted, onwait });
      if (!stored) return;
      this.#store(stored.ranking, draft);
      this.receipt = stored.receipt;
      if (isWanted()) {
        this.draft = null;
        this.saving = "no";
      }
      this.#changed();
      pollHealth();
      await this.#revealVersions();
    } catch (error) {
      if (isWanted()) {
        this.saving = "refused";
        this.sent = null;
        this.hooks.failed(`Not saved: ${messageOf(error)}`);
      }
    }
    this.#changed();
  }

  #store(ranking, sent = this.saved) {
    this.turn.ranking = ranking;
    const stored = orderOf(this.turn);
    // The order as it was given also knows which reply followed by itself: '=' may still tie it.
    this.saved = sent && stored && order.isSame(sent, stored) ? sent : stored;
  }

  async #revealVersions() {
    try {
      const fresh = turnFrom(await call("GET", `/api/turns/${this.turn.id}`));
      for (const reply of fresh.replies) {
        const card = this.#cardOf(reply.id);
        if (card) card.reply.version = reply.version;
      }
    } catch {
      // Only the tags are missing; they come with the next load.
    }
  }

  // --- cutting, focus -------------------------------------------------------------------------

  startCutting() {
    this.isCutting = !this.isCutting && this.isWriting;
    this.#changed();
  }

  async cut(shown) {
    this.isCutting = false;
    const reply = this.turn.replies.find((other) => other.shown === shown);
    this.#changed();
    if (reply?.state !== "streaming") return;
    try {
      await call("POST", `/api/replies/${reply.id}/cancel`);
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }

  async cutAll() {
    await Promise.all(this.turn.replies.map((reply) => this.cut(reply.shown)));
  }

  /** Shown position of the focused card, else the first. */
  get focused() {
    const index = this.cards.findIndex((card) => card.element === document.activeElement);
    return this.cards[Math.max(index, 0)].reply.shown;
  }

  /** Take the focus, so that it leaves the message field and the keys work. */
  focus() {
    this.grid.focus({ preventScroll: true });
  }
}

function storedText(ranking) {
  return ranking.allBad ? "Stored: all bad" : `Stored: ${ranking.order}`;
}
