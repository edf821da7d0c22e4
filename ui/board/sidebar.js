// The conversations: new, open, find. On a phone it slides over the page.

import { ApiError, call, listOf, messageOf } from "./api.js";
import { ConversationItem } from "./conversation_item.js";
import { button, el, toast } from "./dom.js";
import { redrawEntries, walkEntries } from "./focus.js";
import { say } from "./words.js";

const UNDO_MS = 6000;
const SEARCH_FROM = 8;
const SEARCH_MS = 200;

export class Sidebar {
  /** `hooks`: open(id), startNew(), deleted(id), failed(message). */
  constructor(hooks) {
    this.hooks = hooks;
    this.conversations = [];
    this.found = null; // {words, conversations} of the search
    this.current = null;
    this.doomed = new Map(); // id -> timer: hidden now, erased when the undo has passed
    this.list = el("ul", { class: "conversations" });
    walkEntries(this.list);
    this.search = el("input", {
      type: "search",
      class: "field",
      placeholder: say("Search"),
      "aria-label": say("Search conversations"),
      "data-testid": "search",
      oninput: () => {
        clearTimeout(this.searching);
        this.searching = setTimeout(() => this.#find(), SEARCH_MS);
      },
    });
    const startNew = () => {
      this.toggle(false);
      hooks.startNew();
    };
    this.element = el(
      "nav",
      { class: "sidebar", "aria-label": say("Conversations") },
      button(say("New chat"), startNew, { kind: "outline", testid: "new-conversation" }),
      this.search,
      this.list,
    );
    this.scrim = el("div", { class: "scrim", onclick: () => this.toggle(false) });
    this.menu = button("", () => this.toggle(), {
      kind: "menu",
      testid: "menu",
      "aria-label": say("Conversations"),
      "aria-expanded": "false",
    });
    this.menu.append(el("i"), el("i"), el("i"));
    this.phoneNew = button("+", startNew, {
      kind: "phone-new",
      testid: "new-conversation-phone",
      "aria-label": say("New chat"),
    });
    addEventListener("pagehide", () => this.#eraseAll());
    addEventListener("keydown", (event) => this.#key(event), { capture: true });
    this.#draw();
  }

  /** Slide in or out; only a phone shows the difference. */
  toggle(isOpen = !this.element.classList.contains("is-open")) {
    this.element.classList.toggle("is-open", isOpen);
    this.menu.setAttribute("aria-expanded", String(isOpen));
  }

  /** Esc closes the drawer of a phone. */
  #key(event) {
    if (event.key !== "Escape" || !this.element.classList.contains("is-open")) return;
    if (event.target.matches("[data-testid=conversation-title]")) return; // a half-written title is left first
    event.preventDefault();
    this.toggle(false);
    this.menu.focus();
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

  /** Ask the server for the conversations that hold the words. */
  async #find() {
    const words = this.search.value.trim();
    if (!words) {
      this.found = null;
      return this.#draw();
    }
    try {
      const answer = await call("GET", `/api/conversations?search=${encodeURIComponent(words)}`);
      if (words !== this.search.value.trim()) return undefined;
      this.found = { words, conversations: listOf(answer, "conversations") };
      return this.#draw();
    } catch (error) {
      return this.hooks.failed(messageOf(error));
    }
  }

  #draw() {
    // The first message gives the title: without one there is nothing to come back to.
    const all = this.found?.conversations ?? this.conversations;
    const shown = all.filter(({ id, title }) => (title || id === this.current) && !this.doomed.has(id));
    this.search.hidden = this.conversations.length < SEARCH_FROM && !this.search.value;
    const items = shown.map((conversation) => new ConversationItem(conversation, this.#deeds(conversation)));
    const none = this.found ? say("Nothing found.") : say("Your conversations will be listed here.");
    const entries = items.length ? items.map((item) => item.element) : [el("li", { class: "hint" }, none)];
    redrawEntries(this.list, () => this.list.replaceChildren(...entries));
  }

  #deeds(conversation) {
    return {
      isCurrent: conversation.id === this.current,
      open: () => {
        this.toggle(false);
        this.hooks.open(conversation.id);
      },
      rename: (title) => this.#rename(conversation, title),
      remove: (title) => this.#delete(conversation, title),
    };
  }

  async #rename(conversation, title) {
    const before = conversation.title;
    conversation.title = title;
    this.#draw();
    try {
      await call("PATCH", `/api/conversations/${conversation.id}`, { title });
    } catch (error) {
      conversation.title = before;
      this.hooks.failed(say("Not renamed: {reason}", { reason: messageOf(error) }));
    }
    await this.refresh();
  }

  #delete(conversation, title) {
    const timer = setTimeout(() => this.#erase(conversation.id), UNDO_MS);
    this.doomed.set(conversation.id, timer);
    this.#draw();
    if (conversation.id === this.current) this.hooks.deleted(conversation.id);
    toast(say('Deleted "{title}".', { title: title.length > 40 ? `${title.slice(0, 40)}...` : title }), {
      action: say("Undo"),
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
      if (error.status !== 404)
        this.hooks.failed(say("Not deleted: {reason}", { reason: messageOf(error) }));
    }
    this.doomed.delete(id);
    this.#draw();
  }

  #eraseAll() {
    for (const id of this.doomed.keys()) this.#erase(id, { keepalive: true });
  }
}
