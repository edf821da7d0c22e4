// The board of one turn: its replies side by side, as they are written and ranked.

import { call, messageOf } from "./api.js";
import { Card } from "./card.js";
import { Comment } from "./comment.js";
import { Demonstration } from "./demonstration.js";
import { el } from "./dom.js";
import { startDragging } from "./drag.js";
import { moveFocus } from "./focus.js";
import { Ranking } from "./ranking.js";
import { choiceText, isChoosing, isStreaming, turnFrom } from "./turns.js";
import { say } from "./words.js";

export class Board {
  /** `hooks`: changed(board), activated(board), failed(message), and where there is one goOn(reply). */
  constructor(turn, hooks) {
    this.turn = turn;
    this.hooks = hooks;
    this.isCutting = false;
    this.isCurrent = true; // the newest turn of its conversation
    this.ranking = new Ranking(turn, {
      changed: () => this.#changed(),
      failed: (message) => hooks.failed(message),
      stored: () => this.#revealVersions(),
      withdrawn: () => this.#hideMakers(),
    });
    this.cards = turn.replies.map(
      (reply) =>
        new Card(reply, {
          onpick: (shown) => this.pick(shown),
          oncut: (shown) => this.cut(shown),
          ondrag: turn.replies.length > 1 && ((event) => this.#drag(event, reply.shown)),
          ongoon: hooks.goOn ?? null,
          onfailed: (message) => hooks.failed(message),
        }),
    );
    this.listbox = el("div", {
      role: "listbox",
      "aria-multiselectable": "true",
      "aria-label": say("Replies, to be ranked best first"),
      "aria-owns": this.cards.map((card) => card.option.id).join(" "),
    });
    this.grid = el(
      "div",
      {
        class: "board",
        tabindex: "-1",
        "data-testid": "board",
        "data-count": turn.replies.length,
        onkeydown: (event) => moveFocus(this.grid, event),
        onfocusin: () => hooks.activated(this),
      },
      this.cards.map((card) => card.element),
    );
    this.demonstration = new Demonstration(turn, () => this.#changed());
    this.comment = new Comment(turn, {
      read: () => this.ranking.extras.comment,
      write: (text) => this.ranking.comment(text),
    });
    this.choice = el("p", { class: "hint", "data-testid": "choice" });
    this.element = el(
      "div",
      { class: "board-area" },
      this.listbox,
      this.grid,
      this.choice,
      this.comment.element,
      this.demonstration.element,
    );
    this.cards[0]?.option.setAttribute("tabindex", "0");
    this.#changed();
    this.ranking.submitWhenDone();
  }

  // --- what is shown --------------------------------------------------------------------------

  get positions() {
    return this.ranking.positions;
  }

  get draft() {
    return this.ranking.draft;
  }

  get isDraftBad() {
    return this.ranking.isDraftBad;
  }

  get saving() {
    return this.ranking.saving;
  }

  get chain() {
    return this.ranking.chain;
  }

  get receipt() {
    return this.ranking.receipt;
  }

  set receipt(text) {
    this.ranking.receipt = text;
  }

  /** The order on the cards: the draft, else what is stored. */
  get shownOrder() {
    return this.ranking.shownOrder;
  }

  get isPartial() {
    return this.ranking.isPartial;
  }

  get isWriting() {
    return isStreaming(this.turn);
  }

  /** Are candidates still written, so that there is nothing to rank or cut yet? */
  get isChoosing() {
    return isChoosing(this.turn);
  }

  #changed() {
    if (!this.element) return; // while it is made
    const { ranking } = this;
    for (const card of this.cards) card.show(ranking.shownOrder, ranking.isBad, this.isChoosing);
    this.choice.textContent = this.isChoosing ? "" : choiceText(this.turn);
    this.choice.hidden = this.choice.textContent === "";
    this.grid.classList.toggle("is-ranked", ranking.isComplete);
    this.grid.classList.toggle("is-cutting", this.isCutting);
    this.listbox.setAttribute("aria-busy", String(this.isWriting));
    this.comment.show();
    ranking.keep();
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

  /** How far the candidates are. */
  showProgress({ written, scoring }) {
    this.turn.progress = { written, scoring };
    this.#changed();
  }

  finishReply(replyId, { text, finish_reason: reason, version }) {
    const card = this.#cardOf(replyId);
    if (!card) return;
    card.finish(text);
    card.reply.finishReason = reason;
    card.reply.version = version ?? card.reply.version;
    card.reply.state = { cancelled: "cancelled", interrupted: "interrupted" }[reason] ?? "complete";
    if (card.reply.state === "interrupted") this.ranking.narrow();
    this.#changed();
    this.ranking.submitWhenDone();
  }

  /** Take over what the server knows of this turn: texts, ends, versions, labels, the ranking. */
  update(json) {
    const fresh = turnFrom(json);
    for (const reply of fresh.replies) {
      const card = this.#cardOf(reply.id);
      if (!card) continue;
      card.finish(reply.text);
      const { state, finishReason, version, slotType, score, labels } = reply;
      Object.assign(card.reply, { state, finishReason, version, slotType, score, labels });
    }
    this.turn.demonstration = fresh.demonstration;
    this.turn.choice = fresh.choice;
    this.ranking.refresh(fresh.ranking);
    this.#changed();
    this.ranking.submitWhenDone();
  }

  #cardOf(replyId) {
    return this.cards.find((card) => card.reply.id === replyId);
  }

  // --- ranking --------------------------------------------------------------------------------

  /** Give the reply at a shown position the next rank, or cut it when X was pressed. */
  pick(shown) {
    this.hooks.activated(this);
    if (this.isChoosing) return undefined;
    if (this.isCutting) return this.cut(shown);
    return this.ranking.place(shown);
  }

  #drag(event, shown) {
    this.hooks.activated(this);
    if (!this.isChoosing) startDragging(event, this, shown, (at, rank) => this.ranking.putAt(at, rank));
  }

  tie() {
    this.ranking.tie();
  }

  restEqual() {
    this.ranking.restEqual();
  }

  allBad() {
    this.ranking.allBad();
  }

  strengthen(step) {
    if (!this.isChoosing && this.positions.length > 1) this.ranking.strengthen(step);
  }

  undo() {
    return this.ranking.undo();
  }

  retry() {
    this.ranking.retry();
  }

  /** Back to what is stored; false when there was no draft. */
  dropDraft() {
    if (!this.isCutting) return this.ranking.dropDraft();
    this.isCutting = false;
    this.#changed();
    return true;
  }

  async #revealVersions() {
    try {
      const fresh = turnFrom(await call("GET", `/api/turns/${this.turn.id}`));
      for (const { id, version, slotType, score } of fresh.replies) {
        const card = this.#cardOf(id);
        if (card) Object.assign(card.reply, { version, slotType, score });
      }
    } catch {
      // Only the tags are missing; they come with the next load.
    }
  }

  /** Blind again. */
  #hideMakers() {
    for (const reply of this.turn.replies)
      Object.assign(reply, { version: null, slotType: null, score: null });
  }

  // --- cutting, focus -------------------------------------------------------------------------

  startCutting() {
    this.isCutting = !this.isCutting && this.isWriting && !this.isChoosing;
    this.#changed();
  }

  async cut(shown) {
    this.isCutting = false;
    const reply = this.turn.replies.find((other) => other.shown === shown);
    this.#changed();
    if (reply?.state === "streaming") await this.#cancel(`/api/replies/${reply.id}/cancel`);
  }

  async cutAll() {
    if (this.isChoosing) return this.#cancel(`/api/turns/${this.turn.id}/cancel`);
    return await Promise.all(this.turn.replies.map((reply) => this.cut(reply.shown)));
  }

  async #cancel(path) {
    try {
      await call("POST", path);
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }

  /** The card that holds the focus, else the first. */
  get focusedCard() {
    return this.cards.find((card) => card.element.contains(document.activeElement)) ?? this.cards[0];
  }

  /** Shown position of the focused card, else the first. */
  get focused() {
    return this.focusedCard.reply.shown;
  }

  /** Take the focus, so that it leaves the message field and the keys work. */
  focus() {
    this.grid.focus({ preventScroll: true });
  }
}
