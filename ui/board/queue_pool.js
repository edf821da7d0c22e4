// The pool of prompts: find, write, change, import, delete.

import { call, messageOf } from "./api.js";
import { button, el, showText, toast } from "./dom.js";
import { PromptEditor } from "./queue_editor.js";
import { PromptImport } from "./queue_import.js";
import { say } from "./words.js";

const PAGE = 50;
const TYPING_MS = 250;

export class PoolView {
  constructor() {
    this.prompts = [];
    this.hasMore = false;
    this.timer = null;
    this.asked = 0; // only the answer to the newest question is shown
    this.search = el("input", {
      type: "search",
      class: "field",
      placeholder: say("Search"),
      "aria-label": say("Search prompts"),
      "data-testid": "pool-search",
      oninput: () => this.#searchSoon(),
    });
    this.tag = el("select", {
      class: "field",
      "aria-label": say("Tag"),
      "data-testid": "pool-tag",
      onchange: () => this.load(),
    });
    this.error = el("p", { class: "error-banner", role: "alert", hidden: true });
    this.count = el("p", { class: "hint", role: "status", "data-testid": "pool-count" });
    this.list = el("ul", { class: "pool", "data-testid": "pool" });
    this.more = button(say("Show more"), () => this.load({ isMore: true }), {
      kind: "outline",
      testid: "pool-more",
    });
    this.editor = new PromptEditor({ saved: () => this.load() });
    this.import = new PromptImport({ imported: () => this.load() });
    const { editor } = this;
    this.element = el(
      "div",
      { class: "queue-scroll" },
      el(
        "div",
        { class: "queue-inner" },
        el(
          "div",
          { class: "pool-tools" },
          this.search,
          this.tag,
          button(say("Write"), () => this.#open(editor), { kind: "primary", testid: "pool-write" }),
          button(say("Import"), () => this.#open(this.import), { kind: "outline", testid: "pool-import" }),
        ),
        el(
          "p",
          { class: "hint role-note", "data-testid": "pool-note" },
          say("Trainers and admins keep this pool; you rate what is in it."),
        ),
        this.error,
        editor.element,
        this.import.element,
        this.count,
        this.list,
        this.more,
      ),
    );
  }

  shown() {
    this.load();
  }

  #open(panel, prompt) {
    for (const other of [this.editor, this.import]) if (other !== panel) other.close();
    panel.open(prompt);
  }

  #searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), TYPING_MS);
  }

  async load({ isMore = false } = {}) {
    const asked = ++this.asked;
    const query = new URLSearchParams({ limit: PAGE + 1, containing: this.search.value.trim() });
    if (this.tag.value) query.set("tag", this.tag.value);
    if (isMore) query.set("after_id", this.prompts.at(-1).id);
    try {
      const [found, tags] = await Promise.all([
        call("GET", `/api/prompts?${query}`),
        call("GET", "/api/prompts/tags"),
      ]);
      if (asked !== this.asked) return;
      this.hasMore = found.length > PAGE;
      this.prompts = [...(isMore ? this.prompts : []), ...found.slice(0, PAGE)];
      this.#showTags(tags);
      this.#fail("");
      this.#draw();
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  #showTags(tags) {
    const chosen = this.tag.value;
    this.tag.replaceChildren(
      el("option", { value: "" }, say("All tags")),
      ...tags.map(({ tag, prompts }) =>
        el("option", { value: tag, selected: tag === chosen }, say("{tag} ({n})", { tag, n: prompts })),
      ),
    );
  }

  #draw() {
    this.list.replaceChildren(...this.prompts.map((prompt) => this.#row(prompt)));
    this.more.hidden = !this.hasMore;
    const n = this.prompts.length;
    const isFiltered = Boolean(this.search.value.trim() || this.tag.value);
    this.count.textContent =
      n === 0
        ? isFiltered
          ? say("No prompt is like that. Change the search or the tag.")
          : say("The pool is empty. Write a prompt, or import a file with one prompt a line.")
        : n === 1
          ? say("1 prompt")
          : this.hasMore
            ? say("The first {n} prompts", { n })
            : say("{n} prompts", { n });
  }

  #row(prompt) {
    const text = el("div", { class: "pool-text", dir: "auto" });
    showText(text, prompt.text);
    const state =
      prompt.ratings === 1
        ? say("rated by 1 person")
        : prompt.ratings > 1
          ? say("rated by {n} people", { n: prompt.ratings })
          : prompt.replies
            ? say("replies are ready")
            : "";
    return el(
      "li",
      { class: "pool-row", "data-testid": "pool-row", "data-prompt": prompt.id },
      text,
      el(
        "div",
        { class: "pool-foot" },
        prompt.tags.map((tag) => el("span", { class: "tag" }, tag)),
        state && el("span", { class: "hint" }, state),
        el("span", { class: "space" }),
        button(say("Edit"), () => this.#open(this.editor, prompt), { kind: "small", testid: "pool-edit" }),
        button(say("Delete"), () => this.#delete(prompt), { kind: "small", testid: "pool-delete" }),
      ),
    );
  }

  async #delete(prompt) {
    try {
      await call("DELETE", `/api/prompts/${prompt.id}`);
    } catch (error) {
      this.#fail(messageOf(error));
      return;
    }
    toast(say("The prompt is deleted; its ratings stay."), {
      action: say("Undo"),
      onaction: () => this.#restore(prompt),
    });
    await this.load();
  }

  async #restore(prompt) {
    try {
      await call("POST", `/api/prompts/${prompt.id}/restore`);
      await this.load();
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  #fail(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
  }
}
