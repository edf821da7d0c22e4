// One conversation of the history: open it, give it another title, delete it.

import { button, el } from "./dom.js";
import { say } from "./words.js";

export class ConversationItem {
  /** `deeds`: isCurrent, open(), rename(title), remove(title). */
  constructor(conversation, deeds) {
    this.conversation = conversation;
    this.deeds = deeds;
    this.title = conversation.title || say("Conversation {n}", { n: conversation.id });
    this.element = el("li", { "data-testid": "conversation-item", "data-id": conversation.id });
    this.#draw();
  }

  #draw() {
    const { conversation, deeds, title } = this;
    const excerpt = conversation.found && conversation.found !== title ? conversation.found : "";
    const open = el(
      "button",
      {
        type: "button",
        class: "conversation-open",
        "data-testid": "conversation-open",
        dir: "auto",
        title,
        "aria-current": deeds.isCurrent ? "page" : null,
        onclick: () => deeds.open(),
      },
      title,
      excerpt && el("span", { class: "excerpt", "data-testid": "excerpt" }, excerpt),
    );
    const rename = button("\u270e\ufe0e", () => this.#rename(), {
      kind: "rename",
      testid: "conversation-rename",
      "aria-label": say("Rename {title}", { title }),
      title: say("Rename"),
    });
    const remove = button("\u00d7", () => deeds.remove(title), {
      kind: "remove",
      testid: "conversation-delete",
      "aria-label": say("Delete {title}", { title }),
      title: say("Delete"),
    });
    this.element.replaceChildren(open, rename, remove);
  }

  #rename() {
    const field = el("input", {
      class: "field",
      dir: "auto",
      maxlength: 200,
      "aria-label": say("New title"),
      "data-testid": "conversation-title",
      onkeydown: (event) => {
        if (event.key === "Enter" && !event.isComposing) done();
        else if (event.key === "Escape") {
          isDone = true;
          this.#draw();
        }
        else return;
        event.preventDefault();
        event.stopPropagation();
      },
      onblur: () => done(),
    });
    let isDone = false;
    const done = () => {
      if (isDone) return;
      isDone = true;
      const title = field.value.trim();
      this.#draw();
      if (title && title !== this.conversation.title) this.deeds.rename(title);
    };
    field.value = this.conversation.title;
    this.element.replaceChildren(field);
    field.focus();
    field.select();
  }
}
