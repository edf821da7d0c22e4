// The labels of one reply: those given, each to be taken back, and all to choose from.

import { call, messageOf } from "./api.js";
import { chatSettings } from "./chat_settings.js";
import { button, el } from "./dom.js";
import { labelText } from "./label_words.js";
import { say } from "./words.js";

export class ReplyLabels {
  constructor(reply, failed) {
    this.reply = reply;
    this.failed = failed;
    this.isOpen = false;
    this.given = el("div", { class: "label-chips" });
    this.chooser = el("div", {
      class: "label-chooser",
      role: "group",
      "aria-label": say("Labels of reply {n}", { n: reply.shown }),
      "data-testid": "label-chooser",
      hidden: true,
      onkeydown: (event) => this.#key(event),
    });
    this.element = el("div", { class: "card-labels" }, this.given, this.chooser);
    this.show();
  }

  show() {
    const labels = this.reply.labels ?? [];
    const text = labels.join(" ");
    if (this.given.dataset.labels === text) return;
    this.given.dataset.labels = text;
    this.given.replaceChildren(...labels.map((label) => this.#chip(label)));
    for (const choice of this.chooser.children)
      choice.setAttribute("aria-pressed", String(labels.includes(choice.dataset.label)));
  }

  #chip(label) {
    return button(el("span", {}, labelText(label)), () => this.set(label, false), {
      kind: "label-chip",
      testid: "given-label",
      "aria-label": say("Remove the label {label}", { label: labelText(label) }),
      title: say("Remove"),
    });
  }

  /** Open or close the choice of labels. */
  async toggle() {
    this.isOpen = !this.isOpen;
    this.before = document.activeElement;
    if (this.isOpen && !this.chooser.children.length) {
      const { labels } = await chatSettings();
      this.chooser.append(...labels.map((label) => this.#choice(label)));
    }
    this.chooser.hidden = !this.isOpen;
    if (this.isOpen) this.chooser.firstElementChild?.focus();
    else this.before?.focus();
  }

  #choice(label) {
    const isGiven = () => (this.reply.labels ?? []).includes(label);
    return button(labelText(label), () => this.set(label, !isGiven()), {
      kind: "label-choice",
      "data-label": label,
      "data-testid": "label-choice",
      "aria-pressed": String(isGiven()),
    });
  }

  #key(event) {
    const choices = [...this.chooser.children];
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      const at = choices.indexOf(document.activeElement);
      choices[(at + step + choices.length) % choices.length].focus();
    } else if (event.key === "Escape" || event.key.toLowerCase() === "f") this.#close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #close() {
    this.isOpen = false;
    this.chooser.hidden = true;
    this.element.closest(".reply-card")?.querySelector("[role=option]")?.focus();
  }

  /** Give a label or take it back; what is shown is what the server took. */
  async set(label, isTrue) {
    const path = `/api/replies/${this.reply.id}/labels`;
    try {
      if (isTrue) await call("POST", path, { label, value: true });
      else await call("DELETE", `${path}/${encodeURIComponent(label)}`);
    } catch (error) {
      if (isTrue || error.status !== 404) return this.failed(messageOf(error));
    }
    const others = (this.reply.labels ?? []).filter((other) => other !== label);
    this.reply.labels = isTrue ? [...others, label].sort() : others;
    this.show();
    return undefined;
  }
}
