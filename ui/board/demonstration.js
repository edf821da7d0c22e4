// "Write your own": the reply a person would have wanted. It trains by imitation.

import { call, messageOf } from "./api.js";
import { button, drafts, el, toast } from "./dom.js";
import { replyText } from "./reply_text.js";
import { say } from "./words.js";

export class Demonstration {
  constructor(turn, changed) {
    this.turn = turn;
    this.changed = changed;
    this.isOpen = false;
    this.isSaving = false;
    this.draftKey = `demonstration:${turn.id}`;
    this.element = el("div", { class: "demonstration" });
    this.#draw();
  }

  /** Open the editor: with what was written, else with `text` to better. */
  open(text = "") {
    if (this.isOpen) return this.field.focus();
    this.start = text;
    this.isOpen = true;
    this.#draw();
    this.field.focus();
    return this.element.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.isOpen = false;
    this.#draw();
    this.changed();
  }

  #draw() {
    if (this.isOpen) this.element.replaceChildren(this.#editor());
    else if (this.turn.demonstration) this.element.replaceChildren(this.#stored());
    else this.element.replaceChildren();
  }

  #stored() {
    const text = replyText(this.turn.demonstration, { testid: "demonstration-stored" });
    const edit = button(say("Edit"), () => this.open(), { kind: "link" });
    return el(
      "div",
      { class: "own-reply" },
      el("div", { class: "card-head" }, el("span", { class: "label" }, say("Your own reply")), edit),
      text,
    );
  }

  #editor() {
    const id = `own-${this.turn.id}`;
    this.field = el("textarea", {
      id,
      class: "field",
      rows: 5,
      dir: "auto",
      placeholder: say("The reply you would have liked best"),
      "data-testid": "demonstration-text",
      oninput: () => {
        drafts.write(this.draftKey, this.field.value);
        grow(this.field);
      },
      onkeydown: (event) => this.#key(event),
    });
    this.field.value = drafts.read(this.draftKey) || (this.turn.demonstration ?? this.start);
    requestAnimationFrame(() => grow(this.field));
    this.error = el("p", { class: "field-error", role: "alert" });
    const starts = this.turn.replies.map((reply) =>
      button(String(reply.shown), () => this.#startFrom(reply), {
        kind: "small",
        title: say("Start from the text of reply {n}", { n: reply.shown }),
      }),
    );
    return el(
      "div",
      { class: "own-editor" },
      el("label", { for: id, class: "label" }, say("Write the reply you want")),
      this.field,
      this.error,
      el(
        "div",
        { class: "editor-foot" },
        el("span", { class: "hint" }, say("Start from")),
        starts,
        el("span", { class: "space" }),
        button(say("Close"), () => this.close(), { key: "Esc" }),
        button(say("Save"), () => this.save(), {
          kind: "primary",
          key: "Ctrl+Enter",
          testid: "demonstration-save",
        }),
      ),
    );
  }

  #startFrom(reply) {
    this.field.focus();
    this.field.setRangeText(reply.text, 0, this.field.value.length, "end");
    this.field.dispatchEvent(new Event("input"));
  }

  #key(event) {
    if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      this.close();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.save();
    }
  }

  async save() {
    const text = this.field.value;
    if (this.isSaving) return;
    if (!text.trim()) {
      this.error.textContent = say("Write something first, or close with Esc.");
      return;
    }
    this.isSaving = true;
    try {
      await call("POST", `/api/turns/${this.turn.id}/demonstration`, { text });
      this.turn.demonstration = text;
      drafts.write(this.draftKey, "");
      toast(say("Your reply is saved. The next round learns from it."));
      this.close();
    } catch (error) {
      this.error.textContent = say("Not saved: {reason}", { reason: messageOf(error) });
    } finally {
      this.isSaving = false;
    }
  }
}

/** Make a text area as tall as its text, within its CSS limits. */
export function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}
