// The ratings screen: find what was ranked and written, open one, and move data in and out.

import { call, messageOf } from "./api.js";
import { button, drafts, el, inTurn, isShown, onlyLast, toast } from "./dom.js";
import { onHealth } from "./health.js";
import { DemonstrationDetail } from "./ratings_demonstration.js";
import { RankingDetail } from "./ratings_detail.js";
import { ExportPanel } from "./ratings_export.js";
import { EVERYTHING, Filters, isFiltered } from "./ratings_filters.js";
import { ImportPanel } from "./ratings_import.js";
import { demonstrationRow, rankingRow } from "./ratings_list.js";
import { locale, say } from "./words.js";

const PAGE = 25;
const UNDO_MS = 10000;

export class Ratings {
  /** `openConversation(id)` shows a chat. */
  constructor(host, openConversation) {
    this.openConversation = openConversation;
    this.refresh = onlyLast((isLast) => this.#load(isLast));
    this.state = { filters: EVERYTHING, pages: [0], open: null, panel: null, ...kept() };
    this.rows = [];
    this.total = null;
    this.hasMore = false;
    this.doomed = new Map(); // key of a row -> erases it now: gone from the list, while undo is offered
    this.wasShown = false;
    this.isStale = false; // the server did not answer the last time
    this.filters = new Filters(this.state.filters, (filters) => this.#find(filters));
    const hooks = { changed: () => this.refresh(), failed: (message) => this.#showError(message) };
    this.panels = { export: new ExportPanel(hooks), import: new ImportPanel(hooks) };
    this.host = host;
    this.#layOut();
    addEventListener("pagehide", () => this.#eraseAll());
    onHealth(({ isLost }) => this.#noticeShown(isLost));
    this.#showPanel(this.state.panel);
  }

  #layOut() {
    this.count = el("span", { class: "hint", role: "status", "data-testid": "ratings-count" });
    this.errorText = el("span", {});
    this.error = el(
      "div",
      { class: "error-banner", role: "alert", "data-testid": "ratings-error", hidden: true },
      this.errorText,
      button(say("Close"), () => this.#showError(""), { kind: "link" }),
    );
    this.list = el("ul", { class: "rating-rows", "data-testid": "ratings-list" });
    const turn = inTurn((step) => this.#turnPage(step));
    this.newer = button(say("Newer"), () => turn(-1), { kind: "outline small", testid: "newer" });
    this.older = button(say("Older"), () => turn(1), { kind: "outline small", testid: "older" });
    this.detail = el("section", {
      class: "rating-detail",
      "aria-label": say("One rating"),
      "data-testid": "rating-detail",
    });
    this.panelButtons = Object.fromEntries(
      Object.entries({ export: say("Export"), import: say("Import") }).map(([name, label]) => [
        name,
        button(label, () => this.#showPanel(this.state.panel === name ? null : name), {
          kind: "outline small",
          testid: `open-${name}`,
          "aria-expanded": "false",
        }),
      ]),
    );
    const head = el(
      "div",
      { class: "ratings-head" },
      el("h2", {}, say("Ratings")),
      this.count,
      el("span", { class: "space" }),
      Object.values(this.panelButtons),
    );
    this.body = el(
      "div",
      { class: "ratings-body" },
      el("div", { class: "rating-list" }, this.list, el("div", { class: "pager" }, this.newer, this.older)),
      this.detail,
    );
    this.element = el(
      "div",
      { class: "ratings", "data-testid": "ratings" },
      head,
      this.panels.export.element,
      this.panels.import.element,
      this.error,
      this.filters.element,
      this.body,
    );
    this.host.append(this.element);
  }

  /** Look again when the tab is opened, as somebody may have ranked, and when the server is back. */
  #noticeShown(isLost) {
    const isNow = isShown(this.element);
    if (isNow && (!this.wasShown || (this.isStale && !isLost))) {
      this.filters.loadChoices();
      this.refresh();
    }
    this.wasShown = isNow;
  }

  #keep() {
    drafts.write("ratings", JSON.stringify(this.state));
  }

  #showPanel(name) {
    this.state.panel = name;
    for (const [other, panel] of Object.entries(this.panels)) {
      panel.show(other === name);
      this.panelButtons[other].setAttribute("aria-expanded", String(other === name));
    }
    this.#keep();
  }

  #showError(text) {
    this.errorText.textContent = text;
    this.error.hidden = text === "";
  }

  // --- the list -------------------------------------------------------------------------------

  get isOfRankings() {
    return this.state.filters.kind === "rankings";
  }

  #find(filters) {
    // Until the others come: a row opened now would be sought among them, by its id.
    if (filters.kind !== this.state.filters.kind) this.list.replaceChildren();
    Object.assign(this.state, { filters, pages: [0], open: null });
    this.refresh();
  }

  async #turnPage(step) {
    if ((step > 0 ? this.older : this.newer).hidden) return;
    const { pages } = this.state;
    if (step < 0) pages.pop();
    else if (pages.at(-1) !== idOf(this.rows.at(-1))) pages.push(idOf(this.rows.at(-1)));
    await this.refresh();
    this.list.querySelector("button")?.focus();
  }

  async #load(isLast) {
    const { state } = this;
    const query = this.filters.query();
    const path = `/api/${state.filters.kind}`;
    try {
      const [rows, counted] = await Promise.all([
        call("GET", `${path}?${query}&before_id=${state.pages.at(-1)}&limit=${PAGE + 1}`),
        call("GET", `${path}/count?${query}`),
      ]);
      if (!isLast()) return; // another filter or page has been asked for since
      this.hasMore = rows.length > PAGE;
      this.rows = rows.slice(0, PAGE);
      this.total = counted.count;
      this.isStale = false;
      this.#showError("");
      if (!rows.length && state.pages.length > 1) {
        state.pages.pop();
        return this.#load(isLast);
      }
      this.#draw();
      await this.#drawDetail();
    } catch (error) {
      if (!isLast()) return;
      this.isStale = error.isConnectionLost;
      if (!this.isStale) this.#showError(messageOf(error));
    }
    this.#keep();
  }

  #draw() {
    const shown = this.rows.filter((row) => !this.doomed.has(this.#keyOf(row)));
    const make = this.isOfRankings ? rankingRow : demonstrationRow;
    this.list.replaceChildren(
      ...shown.map((row) =>
        make(row, { isOpen: idOf(row) === this.state.open, isTeam: this.filters.isTeam }, () =>
          this.open(idOf(row)),
        ),
      ),
    );
    if (!shown.length) this.list.append(el("li", { class: "hint none" }, this.#emptyText()));
    this.newer.hidden = this.state.pages.length < 2;
    this.older.hidden = !this.hasMore;
    this.count.textContent = this.#countText();
  }

  #countText() {
    const n = (this.total - this.doomed.size).toLocaleString(locale);
    if (this.isOfRankings) return n === "1" ? say("1 ranking") : say("{n} rankings", { n });
    return n === "1" ? say("1 written reply") : say("{n} written replies", { n });
  }

  #emptyText() {
    if (isFiltered(this.state.filters)) return say("Nothing is found. Remove a filter, or try other words.");
    if (this.isOfRankings)
      return say("Nothing is ranked yet. Ask something in the Chat, and press the replies from best to worst.");
    return say("No reply is written yet. In the Chat, press E below the replies to write the one you want.");
  }

  #keyOf(row) {
    return `${this.state.filters.kind}:${idOf(row)}`;
  }

  // --- one of them ----------------------------------------------------------------------------

  /** Open a row by its id, or close with null. */
  async open(id) {
    this.filters.settle(); // which closes what is open
    this.state.open = id;
    this.#draw();
    this.#keep();
    await this.#drawDetail();
    if (id !== null) this.detail.querySelector("h3")?.focus({ preventScroll: false });
  }

  async #drawDetail() {
    const { open } = this.state;
    this.body.classList.toggle("is-open", open !== null);
    if (open === null) {
      const hint = this.rows.length && say("Open a rating to see its replies, change their order, or delete it.");
      this.detail.replaceChildren(...(hint ? [el("p", { class: "hint none" }, hint)] : []));
      return;
    }
    const Detail = this.isOfRankings ? RankingDetail : DemonstrationDetail;
    const path = this.isOfRankings ? `/api/rankings/${open}?details=true` : `/api/demonstrations/${open}`;
    try {
      const json = await call("GET", path);
      if (this.state.open !== open) return;
      const shown = new Detail(json, {
        close: () => this.#close(),
        replaced: (id) => this.#replaced(id),
        remove: () => this.#remove(open),
        chat: this.openConversation,
        failed: (message) => this.#showError(message),
      });
      this.detail.replaceChildren(shown.element);
    } catch (error) {
      if (error.status !== 404) this.#showError(messageOf(error));
      else if (this.state.open === open) this.#close();
    }
  }

  #close() {
    const id = this.state.open;
    this.open(null);
    this.list.querySelector(`[data-id="${id}"] button`)?.focus();
  }

  /** It has another id now: a revision is a row of its own. */
  #replaced(id) {
    this.state.open = id;
    return this.refresh();
  }

  // --- deleting -------------------------------------------------------------------------------

  async #remove(id) {
    const { kind } = this.state.filters;
    const key = `${kind}:${id}`;
    try {
      // A withdrawn ranking counts no more, whatever becomes of this page.
      if (kind === "rankings") await call("DELETE", `/api/rankings/${id}?mode=withdraw`);
    } catch (error) {
      this.#showError(messageOf(error));
      return;
    }
    const erase = (options) => this.#erase(kind, id, options);
    this.doomed.set(key, erase);
    const timer = setTimeout(erase, UNDO_MS);
    this.open(null);
    toast(say("Deleted."), {
      action: say("Undo"),
      milliseconds: UNDO_MS - 200,
      onaction: () => {
        clearTimeout(timer);
        this.#bringBack(kind, id);
      },
    });
    await this.refresh();
  }

  async #bringBack(kind, id) {
    this.doomed.delete(`${kind}:${id}`);
    try {
      if (kind === "rankings") await call("POST", `/api/rankings/${id}/restore`);
      if (kind === this.state.filters.kind) this.state.open = id;
      await this.refresh();
    } catch (error) {
      this.#showError(messageOf(error));
    }
  }

  async #erase(kind, id, options) {
    if (!this.doomed.delete(`${kind}:${id}`)) return;
    try {
      const query = kind === "rankings" ? "?mode=erase" : "";
      const answer = await call("DELETE", `/api/${kind}/${id}${query}`, undefined, options);
      if (answer.versions?.length)
        toast(
          say("{versions} had learned from it, and are marked. The next round learns without it.", {
            versions: answer.versions.join(", "),
          }),
        );
    } catch (error) {
      if (error.status !== 404) this.#showError(say("Not erased: {why}", { why: messageOf(error) }));
    }
    await this.refresh();
  }

  #eraseAll() {
    for (const erase of [...this.doomed.values()]) erase({ keepalive: true });
  }
}

function idOf(row) {
  return row.ranking_id ?? row.demonstration_id;
}

function kept() {
  try {
    const { filters, pages, open, panel } = JSON.parse(drafts.read("ratings"));
    return { filters: { ...EVERYTHING, ...filters }, pages: pages.length ? pages : [0], open, panel };
  } catch {
    return {};
  }
}

/** Fill the Ratings tab. */
export function startRatings(host, openConversation) {
  return new Ratings(host, openConversation);
}
