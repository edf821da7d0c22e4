// One reply that a person wrote: the conversation it answers, its text to change, and its end.

import { call, messageOf } from "./api.js";
import { button, el, showText, toast } from "./dom.js";
import { grow } from "./demonstration.js";
import { messagesBefore } from "./ratings_before.js";
import { moment } from "./times.js";
import { say } from "./words.js";

export class DemonstrationDetail {
  /** `hooks`: close(), replaced(id), remove(), chat(id), failed(message). */
  constructor(json, hooks) {
    this.json = json;
    this.hooks = hooks;
    const { conversation_id: conversation } = json;
    const message = el("div", { class: "message", dir: "auto", "data-testid": "rating-prompt" });
    showText(message, json.messages.at(-1)?.content ?? "");
    this.field = el("textarea", {
      class: "field",
      rows: 5,
      dir: "auto",
      readonly: !json.mine,
      "aria-label": say("The written reply"),
      "data-testid": "written-text",
      oninput: () => this.#draw(),
    });
    this.field.value = json.text;
    requestAnimationFrame(() => grow(this.field));
    this.save = button(say("Save"), () => this.#store(), { kind: "primary small", testid: "written-save" });
    const chat = conversation !== null &&
      button(say("Open the chat"), () => hooks.chat(conversation), { kind: "link", testid: "to-chat" });
    this.element = el(
      "article",
      { "data-testid": "rating", "data-id": json.demonstration_id },
      el(
        "div",
        { class: "detail-head" },
        button(say("Back"), () => hooks.close(), { kind: "outline small back", testid: "rating-back" }),
        el("h3", { tabindex: "-1" }, say("Written reply")),
        el("span", { class: "hint" }, [json.person, moment(json.created_at)].filter(Boolean).join(", ")),
        el("span", { class: "space" }),
        chat,
        button(say("Delete"), () => hooks.remove(), { kind: "outline small", testid: "rating-delete" }),
      ),
      messagesBefore(json.messages.slice(0, -1)),
      el("div", { class: "message-row" }, message),
      el("div", { class: "extras" }, this.field, el("div", { class: "extras-foot" }, this.save)),
    );
    this.#draw();
  }

  #draw() {
    this.save.hidden = !this.json.mine || this.field.value === this.json.text;
    grow(this.field);
  }

  async #store() {
    const text = this.field.value;
    this.save.disabled = true;
    try {
      const made = await call("PUT", `/api/demonstrations/${this.json.demonstration_id}`, { text });
      toast(say("Your reply is changed. The next round learns from it."));
      await this.hooks.replaced(made.demonstration_id);
    } catch (error) {
      this.hooks.failed(say("Not saved: {why}", { why: messageOf(error) }));
    }
    this.save.disabled = false;
  }
}
