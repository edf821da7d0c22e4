// A comment on the ranking of a turn: why this order. It is stored with the ranking.

import { button, drafts, el, showText } from "./dom.js";
import { grow } from "./demonstration.js";
import { say } from "./words.js";

export class Comment {
  /** `read()` gives the comment as it stands, `write(text)` changes it. */
  constructor(turn, { read, write }) {
    this.turn = turn;
    this.read = read;
    this.write = write;
    this.isOpen = false;
    this.draftKey = `comment:${turn.id}`;
    this.element = el("div", { class: "comment" });
  }

  /** Show the comment that counts; an open editor is left alone. */
  show() {
    if (this.isOpen) return;
    const text = this.read();
    if (this.element.dataset.text === text) return;
    this.element.dataset.text = text;
    if (!text) return this.element.replaceChildren();
    const shown = el("span", { class: "comment-text", dir: "auto", "data-testid": "comment" });
    showText(shown, text);
    return this.element.replaceChildren(
      el("span", { class: "label" }, say("Comment")),
      shown,
      button(say("Edit"), () => this.open(), { kind: "link" }),
    );
  }

  open() {
    if (this.isOpen) return this.field.focus();
    this.isOpen = true;
    const id = `comment-${this.turn.id}`;
    this.field = el("textarea", {
      id,
      class: "field",
      rows: 2,
      dir: "auto",
      placeholder: say("Why this order?"),
      "data-testid": "comment-text",
      oninput: () => {
        drafts.write(this.draftKey, this.field.value);
        grow(this.field);
      },
      onkeydown: (event) => this.#key(event),
    });
    this.field.value = drafts.read(this.draftKey) || this.read();
    this.element.replaceChildren(
      el("label", { for: id, class: "label" }, say("Comment on the ranking")),
      this.field,
      el(
        "div",
        { class: "editor-foot" },
        el("span", { class: "space" }),
        button(say("Close"), () => this.close(), { key: "Esc" }),
        button(say("Save"), () => this.save(), { kind: "primary", key: "Enter", testid: "comment-save" }),
      ),
    );
    grow(this.field);
    this.field.focus();
    return this.element.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.save();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  save() {
    this.write(this.field.value);
    this.close();
  }

  close() {
    drafts.write(this.draftKey, "");
    this.isOpen = false;
    delete this.element.dataset.text;
    this.show();
    this.element.closest(".board-area")?.querySelector(".board")?.focus({ preventScroll: true });
  }
}
