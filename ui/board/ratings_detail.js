// One ranking: what was asked, the replies in the order they got, and the means to change it.

import { call, messageOf } from "./api.js";
import { rankText } from "./card.js";
import { button, el, isShown, isTouch, randomId, showText, toast } from "./dom.js";
import { moveFocus } from "./focus.js";
import { pollHealth } from "./health.js";
import { listenForKeys } from "./keys.js";
import { labelText } from "./label_words.js";
import * as order from "./order.js";
import { earlierOrders, messagesBefore } from "./ratings_before.js";
import { replyText } from "./reply_text.js";
import { moment } from "./times.js";
import { say } from "./words.js";

let current = null; // the ranking that keys work on

export class RankingDetail {
  /** `hooks`: close(), replaced(id), remove(), chat(id), failed(message). */
  constructor(json, hooks) {
    this.json = json;
    this.hooks = hooks;
    this.replies = json.turn.replies.filter((reply) => reply.id in json.ranks);
    this.saved = this.#savedOrder();
    this.draft = null;
    this.isDraftBad = false;
    this.isSaving = false;
    this.canChange = json.mine && json.state === "active";
    this.#layOut();
    this.#draw();
    current = this;
    listenOnce();
  }

  get positions() {
    return this.replies.map((reply) => reply.position + 1);
  }

  #savedOrder() {
    const shown = {};
    for (const reply of this.replies) shown[reply.position + 1] = this.json.ranks[reply.id];
    return order.fromRanks(shown);
  }

  // --- layout ---------------------------------------------------------------------------------

  #layOut() {
    const { json, hooks } = this;
    this.status = el("p", { class: "receipt", role: "status", "data-testid": "rating-status" });
    this.cards = this.#inStoredOrder().map((reply) => this.#card(reply));
    this.grid = el(
      "div",
      {
        class: "board rating-board",
        role: "listbox",
        "aria-multiselectable": "true",
        "aria-label": say("Replies, the best first"),
        tabindex: "-1",
        onkeydown: (event) => moveFocus(this.grid, event),
      },
      this.cards.map((card) => card.element),
    );
    this.cards[0]?.element.setAttribute("tabindex", "0");
    this.tie = button(say("Tie next"), () => this.act("tie"), { key: "=", testid: "rating-tie" });
    this.rest = button(say("Rest equal"), () => this.act("rest"), { key: "Enter", testid: "rating-rest" });
    this.bad = button(say("All bad"), () => this.act("bad"), { key: "0", testid: "rating-bad" });
    this.cancel = button(say("Cancel"), () => this.act("escape"), { key: "Esc", testid: "rating-cancel" });
    const title = json.all_bad ? say("All bad") : json.order;
    const message = el("div", { class: "message", dir: "auto", "data-testid": "rating-prompt" });
    showText(message, json.turn.text);
    this.element = el(
      "article",
      { "data-testid": "rating", "data-id": json.ranking_id },
      el(
        "div",
        { class: "detail-head" },
        button(say("Back"), () => hooks.close(), { kind: "outline small back", testid: "rating-back" }),
        el("h3", { tabindex: "-1", "data-testid": "rating-order" }, title),
        el("span", { class: "hint" }, [json.person, moment(json.created_at)].filter(Boolean).join(", ")),
        el("span", { class: "space" }),
        button(say("Open the chat"), () => hooks.chat(json.conversation_id), { kind: "link", testid: "to-chat" }),
        button(say("Delete"), () => hooks.remove(), { kind: "outline small", testid: "rating-delete" }),
      ),
      messagesBefore(json.before),
      el("div", { class: "message-row" }, message),
      el(
        "div",
        { class: "rank-line" },
        this.status,
        this.canChange && el("div", { class: "rank-actions" }, this.tie, this.rest, this.bad, this.cancel),
      ),
      this.grid,
      this.#extras(),
      earlierOrders(json.earlier),
    );
  }

  #inStoredOrder() {
    const { ranks } = this.json;
    return [...this.replies].sort((a, b) => ranks[a.id] - ranks[b.id] || a.position - b.position);
  }

  #card(reply) {
    const shown = reply.position + 1;
    const pill = el("span", { class: "rank-pill" });
    const text = replyText(reply.text);
    const labels = this.json.labels
      .filter((label) => label.reply_id === reply.id)
      .map(({ label, value }) => {
        const words = labelText(label);
        return value ? words : say("not {label}", { label: words });
      });
    const made = [reply.version, reply.score != null && say("score {n}", { n: reply.score.toFixed(2) })];
    const element = el(
      "div",
      {
        class: "reply-card",
        role: "option",
        tabindex: "-1",
        "data-testid": "rating-reply",
        "data-position": shown,
        "aria-selected": "false",
        "aria-disabled": this.canChange ? null : "true",
        "aria-keyshortcuts": this.canChange ? String(shown) : null,
        onclick: () => getSelection().isCollapsed && this.pick(shown),
      },
      el(
        "div",
        { class: "card-head" },
        el("span", { class: "number" }, el("span", { class: "sr-only" }, say("Reply"), " "), String(shown)),
        pill,
        el("span", { class: "version-tag" }, made.filter(Boolean).join(" - ")),
        labels.length > 0 && el("span", { class: "end", "data-testid": "rating-labels" }, labels.join(", ")),
      ),
      text,
    );
    return { shown, element, pill };
  }

  /** Comment and strength: to be changed by the rater, to be read by others. */
  #extras() {
    const { comment, strength } = this.json;
    if (!this.canChange) {
      const text = el("p", { dir: "auto", "data-testid": "rating-comment" });
      showText(text, comment);
      const sure = strength ? say("Strength {n} of 5.", { n: strength }) : "";
      return comment || sure ? el("div", { class: "extras" }, text, el("p", { class: "hint" }, sure)) : null;
    }
    this.comment = el("textarea", {
      class: "field",
      rows: 2,
      dir: "auto",
      "aria-label": say("Comment"),
      placeholder: say("Why this order? A comment for yourself and others."),
      "data-testid": "rating-comment",
      oninput: () => this.#draw(),
    });
    this.comment.value = comment;
    this.strength = el(
      "select",
      { class: "field", "data-testid": "rating-strength", onchange: () => this.#draw() },
      el("option", { value: "" }, say("not said")),
      [1, 2, 3, 4, 5].map((n) => el("option", { value: n }, String(n))),
    );
    this.strength.value = strength ?? "";
    this.save = button(say("Save"), () => this.#store(this.saved, this.json.all_bad), {
      kind: "primary small",
      testid: "rating-save",
    });
    const sure = el("label", { class: "filter" }, el("span", { class: "hint" }, say("Strength")), this.strength);
    return el("div", { class: "extras" }, this.comment, el("div", { class: "extras-foot" }, sure, this.save));
  }

  #draw() {
    const shown = this.draft ?? this.saved;
    const isBad = this.draft ? this.isDraftBad : this.json.all_bad;
    for (const { shown: place, element, pill } of this.cards) {
      const rank = order.rankOf(shown, place);
      element.classList.toggle("is-bad", isBad);
      element.setAttribute("aria-selected", String(rank !== null));
      if (rank === null || isBad) delete element.dataset.rank;
      else element.dataset.rank = rank;
      if (isBad) pill.textContent = say("bad");
      else if (rank === null) pill.textContent = "";
      else pill.textContent = rankText(rank, order.isTied(shown, place));
    }
    const isPartial = this.draft !== null;
    this.status.textContent = this.#statusText();
    this.tie.hidden = this.rest.hidden = this.cancel.hidden = !isPartial;
    this.tie.setAttribute("aria-pressed", String(this.draft?.tieNext ?? false));
    this.bad.hidden = isPartial || this.json.all_bad;
    if (this.save) this.save.hidden = !this.#isEdited();
  }

  #isEdited() {
    const { comment, strength } = this.json;
    return this.comment.value.trim() !== comment.trim() || this.strength.value !== String(strength ?? "");
  }

  #statusText() {
    if (this.isSaving) return say("Saving");
    if (this.draft)
      return say("New order: {order}", { order: `${order.orderText(this.draft)}${this.draft.tieNext ? "=" : ">"}?` });
    if (!this.canChange) return say("Only {person} can change this order.", { person: this.json.person });
    if (isTouch) return say("To change the order, tap the replies, the best first.");
    return say("To change the order, click the replies or press their numbers, the best first.");
  }

  // --- changing the order ---------------------------------------------------------------------

  /** Give the reply at a shown position the next place of a new order. */
  pick(shown) {
    if (!this.canChange || this.isSaving || this.positions.length < 2) return;
    this.#propose(order.place(this.draft ?? order.EMPTY, shown, this.positions));
  }

  /** What a key or a button does. */
  act(name) {
    if (!this.canChange || this.isSaving) return;
    if (name === "bad" && !this.draft && this.positions.length > 1)
      this.#propose(order.allEqual(this.positions), true);
    if (!this.draft) return;
    if (name === "tie") this.#propose(order.toggleTie(this.draft));
    else if (name === "rest") this.#propose(order.restEqual(this.draft, this.positions));
    else if (name === "undo") this.#propose(order.takeBack(this.draft));
    else if (name === "escape") this.#propose(order.EMPTY);
  }

  #propose(next, isBad = false) {
    this.draft = order.isEmpty(next) ? null : next;
    this.isDraftBad = isBad;
    const isNews = isBad !== this.json.all_bad || !order.isSame(next, this.saved);
    if (this.draft && order.isComplete(this.draft, this.positions)) {
      if (isNews) this.#store(this.draft, isBad);
      else this.draft = null;
    }
    this.#draw();
  }

  /** Store an order, with the comment and the strength that are on the page. */
  async #store(chosen, isBad) {
    const ranks = {};
    for (const reply of this.replies) ranks[reply.id] = order.rankOf(chosen, reply.position + 1);
    const strength = this.strength.value ? Number(this.strength.value) : null;
    const comment = this.comment.value.trim();
    const body = { ranks, all_bad: isBad, comment, strength, idempotency_key: randomId() };
    this.isSaving = true;
    this.#draw();
    try {
      const made = await call("PUT", `/api/rankings/${this.json.ranking_id}`, body);
      this.#told(made);
      pollHealth();
      await this.hooks.replaced(made.ranking_id);
    } catch (error) {
      this.hooks.failed(say("Not saved: {why}", { why: messageOf(error) }));
    }
    this.isSaving = false;
    this.draft = null;
    this.#draw();
  }

  #told(made) {
    const text = made.all_bad ? say("Changed to all bad.") : say("Changed to {order}.", { order: made.order });
    toast(text, {
      action: say("Undo"),
      onaction: async () => {
        try {
          const { ranking } = await call("DELETE", `/api/rankings/${made.ranking_id}`);
          pollHealth();
          await this.hooks.replaced(ranking?.ranking_id ?? null);
        } catch (error) {
          this.hooks.failed(messageOf(error));
        }
      },
    });
  }
}

let isListening = false;

/** The keys of the chat's board, for whichever ranking is open. */
function listenOnce() {
  if (isListening) return;
  isListening = true;
  const screen = {
    get isConnected() {
      return current.element.isConnected;
    },
    getClientRects: () => current.element.getClientRects(),
  };
  listenForKeys(screen, {
    act: (name) => isShown(current.element) && current.act(name),
    pick: (shown) => current.pick(shown),
  });
}
