// The message field. What is typed stays until the server has taken it.

import { button, drafts, el } from "./dom.js";
import { grow } from "./demonstration.js";
import { say } from "./words.js";

export class Composer {
  /** `hooks`: send(text) resolves to true when taken; stop(); settings(); left() when Esc leaves the field. */
  constructor(hooks) {
    this.hooks = hooks;
    this.draftKey = "message:new";
    this.isSending = false;
    this.field = el("textarea", {
      class: "field",
      rows: 1,
      dir: "auto",
      "aria-label": say("Message"),
      "data-testid": "composer",
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#key(event),
    });
    this.sendButton = button(say("Send"), () => this.submit(), { kind: "primary", testid: "send" });
    this.stopButton = button(say("Stop"), () => hooks.stop(), {
      kind: "outline",
      testid: "stop",
      title: say("Cut all replies that are being written"),
    });
    this.settingsButton = button("\u2699\ufe0e", () => hooks.settings(), {
      kind: "tool",
      testid: "settings",
      "aria-label": say("Settings"),
      title: say("Settings"),
    });
    this.note = el("p", { class: "note", role: "status" });
    this.errorText = el("span", {});
    this.error = el(
      "div",
      { class: "error-banner", role: "alert", "data-testid": "error-banner", hidden: true },
      this.errorText,
      button(say("Close"), () => this.showError(""), { kind: "link" }),
    );
    this.element = el(
      "div",
      { class: "composer" },
      this.error,
      this.note,
      el("div", { class: "composer-row" }, this.settingsButton, this.field, this.stopButton, this.sendButton),
    );
    this.setWriting(false);
  }

  get text() {
    return this.field.value;
  }

  /** Use the draft of a conversation (id, or "new"). */
  useDraft(key) {
    this.draftKey = `message:${key}`;
    this.setText(drafts.read(this.draftKey));
  }

  setText(text) {
    this.field.value = text;
    this.#typed();
  }

  #typed() {
    drafts.write(this.draftKey, this.field.value);
    grow(this.field);
    this.sendButton.disabled = this.field.value.trim() === "";
    if (!this.isSending) this.showNote("");
  }

  #key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "Escape") {
      event.preventDefault();
      this.field.blur();
      this.hooks.left();
    }
  }

  /** Send what is typed. It leaves the field only when the server took it. */
  async submit() {
    const text = this.field.value;
    if (this.isSending || !text.trim()) return;
    this.isSending = true;
    this.field.readOnly = true;
    this.showError("");
    const draftKey = this.draftKey;
    try {
      if (await this.hooks.send(text)) {
        drafts.write(draftKey, "");
        if (this.field.value === text) this.setText("");
      }
    } finally {
      this.isSending = false;
      this.field.readOnly = false;
    }
  }

  /** While replies are written the stop button takes the place of the send button. */
  setWriting(isWriting) {
    this.stopButton.hidden = !isWriting;
    this.sendButton.hidden = isWriting;
    if (!isWriting) this.showNote("");
  }

  showError(text) {
    this.errorText.textContent = text;
    this.error.hidden = text === "";
  }

  showNote(text) {
    this.note.textContent = text;
    this.note.hidden = text === "";
  }
}
