// One reply on the board: its number, its text as it is written, its rank.

import { appendText, button, el, ordinal, showText } from "./dom.js";
import { isTied, rankOf } from "./order.js";
import { endOf } from "./turns.js";

/** A card of the listbox. `onpick` and `oncut` get the shown position. */
export class Card {
  constructor(reply, { onpick, oncut }) {
    this.reply = reply;
    this.text = el("div", { class: "reply-text", dir: "auto", "data-testid": "reply-text" });
    this.end = el("span", { class: "end" });
    this.pill = el("span", { class: "rank-pill" });
    this.version = el("span", { class: "version-tag", title: "the version that wrote this reply" });
    // Reachable by keys as X + digit: an option of a listbox must not hold a second tab stop.
    this.cut = button("Cut", () => oncut(reply.shown), {
      kind: "cut",
      tabindex: "-1",
      testid: "cut",
      title: `Stop reply ${reply.shown} (X ${reply.shown})`,
    });
    this.element = el(
      "div",
      {
        class: "reply-card",
        role: "option",
        tabindex: "-1",
        "data-testid": "reply-card",
        "data-position": reply.shown,
        "aria-selected": "false",
        "aria-posinset": reply.shown,
        "aria-keyshortcuts": String(reply.shown),
        onclick: (event) => this.#click(event, onpick),
      },
      el(
        "div",
        { class: "card-head" },
        el("span", { class: "number" }, el("span", { class: "sr-only" }, "Reply "), String(reply.shown)),
        this.pill,
        this.version,
        this.end,
        this.cut,
      ),
      this.text,
    );
    showText(this.text, reply.text);
    this.show(null, false);
  }

  #click(event, onpick) {
    if (event.target.closest("button")) return;
    const selection = getSelection();
    const isSelecting = !selection.isCollapsed && this.text.contains(selection.anchorNode);
    if (!isSelecting) onpick(this.reply.shown);
  }

  add(text) {
    this.reply.text += text;
    appendText(this.text, text);
  }

  /** The stored text is the truth; it is shown again only where the streamed text differs. */
  finish(text) {
    if (text !== undefined && text !== this.reply.text) {
      this.reply.text = text;
      showText(this.text, text);
    }
  }

  /** Show the reply's end and its rank in `order` (null: none). */
  show(order, isBad) {
    const { reply, element } = this;
    const rank = order ? rankOf(order, reply.shown) : null;
    element.classList.toggle("is-writing", reply.state === "streaming");
    element.classList.toggle("is-empty", reply.state !== "streaming" && reply.text === "");
    element.classList.toggle("is-barred", reply.state === "interrupted");
    element.classList.toggle("is-bad", isBad);
    element.setAttribute("aria-selected", String(rank !== null));
    element.setAttribute("aria-disabled", String(reply.state === "interrupted"));
    if (rank === null || isBad) delete element.dataset.rank;
    else element.dataset.rank = rank;
    this.pill.textContent = isBad
      ? "bad"
      : rank === null
        ? ""
        : `${ordinal(rank)}${isTied(order, reply.shown) ? ", tied" : ""}`;
    this.end.textContent = endOf(reply);
    this.version.textContent = reply.version ?? "";
    this.cut.hidden = reply.state !== "streaming";
  }
}
