// The conversations: new, open, find, delete. On a phone it slides over the page.

import { ApiError, call, listOf, messageOf } from "./api.js";
import { button, el, toast } from "./dom.js";

const UNDO_MS = 6000;
const SEARCH_FROM = 8;

export class Sidebar {
  /** `hooks`: open(id), startNew(), deleted(id), failed(message). */
  constructor(hooks) {
    this.hooks = hooks;
    this.conversations = [];
    this.current = null;
    this.doomed = new Map(); // id -> timer: hidden now, erased when the undo has passed
    this.list = el("ul", { class: "conversations" });
    this.search = el("input", {
      type: "search",
      class: "field",
      placeholder: "Search",
      "aria-label": "Search conversations",
      oninput: () => this.#draw(),
    });
    const startNew = () => {
      this.toggle(false);
      hooks.startNew();
    };
    this.element = el(
      "nav",
      { class: "sidebar", "aria-label": "Conversations" },
      button("New chat", startNew, { kind: "outline", testid: "new-conversation" }),
      this.search,
      this.list,
    );
    this.scrim = el("div", { class: "scrim", onclick: () => this.toggle(false) });
    this.menu = button("", () => this.toggle(), {
      kind: "menu",
      testid: "menu",
      "aria-label": "Conversations",
      "aria-expanded": "false",
    });
    this.menu.append(el("i"), el("i"), el("i"));
    this.phoneNew = button("+", startNew, {
      kind: "phone-new",
      testid: "new-conversation-phone",
      "aria-label": "New chat",
    });
    addEventListener("pagehide", () => this.#eraseAll());
    this.#draw();
  }

  /** Slide in or out; only a phone shows the difference. */
  toggle(isOpen = !this.element.classList.contains("is-open")) {
    this.element.classList.toggle("is-open", isOpen);
    this.menu.setAttribute("aria-expanded", String(isOpen));
  }

  async refresh() {
    try {
      this.conversations = listOf(await call("GET", "/api/conversations"), "conversations");
      this.#draw();
    } catch (error) {
      // The chip says that the connection is lost; the list comes when it is back.
      if (!(error instanceof ApiError)) throw error;
    }
  }

  select(id) {
    this.current = id;
    this.#draw();
  }

  titleOf(conversation) {
    return conversation.title || `Conversation ${conversation.id}`;
  }

  #draw() {
    const wanted = this.search.value.trim().toLowerCase();
    // The first message gives the title: without one there is nothing to come back to.
    const shown = this.conversations.filter(
      ({ id, title }) =>
        (title || id === this.current) && !this.doomed.has(id) && title.toLowerCase().includes(wanted),
    );
    this.search.hidden = this.conversations.length < SEARCH_FROM && !wanted;
    this.list.replaceChildren(...shown.map((conversation) => this.#item(conversation)));
    if (!shown.length)
      this.list.append(
        el("li", { class: "hint" }, wanted ? "Nothing found." : "Your conversations will be listed here."),
      );
  }

  #item(conversation) {
    const title = this.titleOf(conversation);
    const open = el(
      "button",
      {
        type: "button",
        class: "conversation-open",
        dir: "auto",
        title,
        "aria-current": conversation.id === this.current ? "page" : null,
        onclick: () => {
          this.toggle(false);
          this.hooks.open(conversation.id);
        },
      },
      title,
    );
    const remove = button("\u00d7", () => this.#delete(conversation), {
      kind: "remove",
      testid: "conversation-delete",
      "aria-label": `Delete ${title}`,
      title: "Delete",
    });
    return el("li", { "data-testid": "conversation-item", "data-id": conversation.id }, open, remove);
  }

  #delete(conversation) {
    const timer = setTimeout(() => this.#erase(conversation.id), UNDO_MS);
    this.doomed.set(conversation.id, timer);
    this.#draw();
    if (conversation.id === this.current) this.hooks.deleted(conversation.id);
    const title = this.titleOf(conversation);
    const short = title.length > 40 ? `${title.slice(0, 40)}...` : title;
    toast(`Deleted "${short}".`, {
      action: "Undo",
      milliseconds: UNDO_MS - 200,
      onaction: () => {
        clearTimeout(timer);
        this.doomed.delete(conversation.id);
        this.#draw();
        this.hooks.open(conversation.id);
      },
    });
  }

  async #erase(id, options) {
    clearTimeout(this.doomed.get(id));
    try {
      await call("DELETE", `/api/conversations/${id}`, undefined, options);
      this.conversations = this.conversations.filter((conversation) => conversation.id !== id);
    } catch (error) {
      if (error.status !== 404) this.hooks.failed(`Not deleted: ${messageOf(error)}`);
    }
    this.doomed.delete(id);
    this.#draw();
  }

  #eraseAll() {
    for (const id of this.doomed.keys()) this.#erase(id, { keepalive: true });
  }
}
