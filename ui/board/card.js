// One reply on the board: its number, its text as it is written, its rank, and what can be done
// with it. The option of the listbox is the head's number and rank alone: an option may hold no
// buttons and links, and the text has both.

import { button, el } from "./dom.js";
import { copyText } from "./markdown.js";
import { isTied, rankOf } from "./order.js";
import { ReplyLabels } from "./reply_labels.js";
import { ReplyText } from "./reply_text.js";
import { canSpeak, speak } from "./speech.js";
import { endOf, madeBy } from "./turns.js";
import { say } from "./words.js";

/** A card of the board. `onpick` and `oncut` get the shown position, `ondrag` the pointer's event. */
export class Card {
  constructor(reply, { onpick, oncut, ondrag = null, ongoon = null, onfailed = () => {} }) {
    this.reply = reply;
    this.body = new ReplyText({ id: `reply-${reply.id}` });
    this.text = this.body.element;
    this.end = el("span", { class: "end" });
    this.pill = el("span", { class: "rank-pill" });
    this.version = el("span", { class: "version-tag", title: say("the version that wrote this reply") });
    this.cut = button(say("Cut"), () => oncut(reply.shown), {
      kind: "cut",
      testid: "cut",
      title: say("Stop reply {n} (X {n})", { n: reply.shown }),
    });
    this.labels = new ReplyLabels(reply, onfailed);
    this.option = el(
      "div",
      {
        class: "card-option",
        role: "option",
        id: `option-${reply.id}`,
        tabindex: "-1",
        "aria-selected": "false",
        "aria-posinset": reply.shown,
        "aria-describedby": `reply-${reply.id}`,
        "aria-keyshortcuts": String(reply.shown),
      },
      el(
        "span",
        { class: "number" },
        el("span", { class: "sr-only" }, say("Reply"), " "),
        String(reply.shown),
      ),
      this.pill,
    );
    this.element = el(
      "div",
      {
        class: "reply-card",
        "data-testid": "reply-card",
        "data-position": reply.shown,
        onclick: (event) => this.#click(event, onpick),
      },
      el(
        "div",
        { class: "card-head" },
        this.option,
        this.version,
        this.end,
        this.cut,
        ondrag && this.#handle(ondrag),
      ),
      this.text,
      this.labels.element,
      this.#tools(ongoon),
    );
    this.body.set(reply.text);
    this.show(null, false);
  }

  #handle(ondrag) {
    // For hands only: digits do the same by keys.
    return el(
      "span",
      {
        class: "handle",
        "aria-hidden": "true",
        title: say("Drag to a rank"),
        "data-testid": "handle",
        onpointerdown: ondrag,
      },
      "\u2630",
    );
  }

  #tools(ongoon) {
    const small = (label, act, testid, more = {}) => button(label, act, { kind: "tool", testid, ...more });
    this.copyButton = small(say("Copy"), () => this.copy(), "copy");
    this.speakButton = canSpeak && small(say("Listen"), () => this.speak(), "listen", { "aria-pressed": "false" });
    this.labelButton = small(say("Label"), () => this.labels.toggle(), "label");
    this.goOnButton = ongoon && small(say("Go on from here"), () => ongoon(this.reply), "go-on");
    return el(
      "div",
      { class: "card-tools" },
      this.copyButton,
      this.speakButton,
      this.labelButton,
      this.goOnButton,
    );
  }

  #click(event, onpick) {
    if (event.target.closest("button, a, summary, .handle, .card-labels")) return;
    const selection = getSelection();
    const isSelecting = !selection.isCollapsed && this.text.contains(selection.anchorNode);
    if (!isSelecting) onpick(this.reply.shown);
  }

  /** Put the text as it was written on the clipboard. */
  copy() {
    return copyText(this.reply.text, this.copyButton);
  }

  /** Read the text aloud, or stop. */
  speak() {
    if (canSpeak) speak(this.reply.text, this.speakButton);
  }

  add(text) {
    this.reply.text += text;
    this.body.add(text);
  }

  /** The stored text is the truth; it is shown again only where the streamed text differs. */
  finish(text) {
    if (text !== undefined && text !== this.reply.text) this.reply.text = text;
    if (this.body.text !== this.reply.text || this.body.timer !== null) this.body.set(this.reply.text);
  }

  /** Show the reply's end and its rank in `order` (null: none). */
  show(order, isBad, isChoosing = false) {
    const { reply, element } = this;
    const rank = order ? rankOf(order, reply.shown) : null;
    const isDone = reply.state === "complete" || reply.state === "cancelled";
    element.classList.toggle("is-writing", reply.state === "streaming");
    element.classList.toggle("is-empty", reply.state !== "streaming" && reply.text === "");
    element.classList.toggle("is-barred", reply.state === "interrupted");
    element.classList.toggle("is-bad", isBad);
    this.option.setAttribute("aria-selected", String(rank !== null));
    this.option.setAttribute("aria-disabled", String(reply.state === "interrupted"));
    if (rank === null || isBad) delete element.dataset.rank;
    else element.dataset.rank = rank;
    this.pill.textContent = isBad ? say("bad") : rank === null ? "" : rankText(rank, isTied(order, reply.shown));
    this.end.textContent = isChoosing ? say("being chosen") : endOf(reply);
    this.version.textContent = madeBy(reply);
    this.cut.hidden = reply.state !== "streaming" || isChoosing;
    this.labelButton.hidden = !isDone;
    if (this.goOnButton) this.goOnButton.hidden = !isDone;
    this.labels.show();
  }
}

/** "1st", "2nd, tied" */
export function rankText(rank, isTiedRank = false) {
  const place =
    { 1: say("1st"), 2: say("2nd"), 3: say("3rd") }[rank] ?? say("{n}th", { n: rank });
  return isTiedRank ? say("{place}, tied", { place }) : place;
}
