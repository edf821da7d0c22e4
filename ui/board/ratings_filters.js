// What the list of ratings is narrowed down to.

import { call } from "./api.js";
import { button, el } from "./dom.js";
import { labelText } from "./label_words.js";
import { say } from "./words.js";

const TYPING_MS = 250;

/** No filter: all rankings that one may see. */
export const EVERYTHING = Object.freeze({
  kind: "rankings",
  q: "",
  person: "",
  since: "",
  until: "",
  only: "",
  label: "",
  version: "",
  conversation: "",
});

/** Is anything filtered out, besides the kind that is listed? */
export function isFiltered(filters) {
  return Object.keys(EVERYTHING).some((name) => name !== "kind" && filters[name] !== EVERYTHING[name]);
}

export class Filters {
  /** `changed(filters)` is called when a person has set another filter. */
  constructor(filters, changed) {
    this.values = filters;
    this.changed = changed;
    this.isTeam = false;
    this.typing = null;
    this.kinds = el("div", { class: "segments", role: "group", "aria-label": say("What to list") });
    for (const [kind, label] of [
      ["rankings", say("Rankings")],
      ["demonstrations", say("Written replies")],
    ])
      this.kinds.append(
        button(label, () => this.#set("kind", kind), {
          kind: "segment",
          testid: `kind-${kind}`,
          "data-kind": kind,
        }),
      );
    this.search = el("input", {
      type: "search",
      class: "field",
      placeholder: say("Search prompts, replies, comments"),
      "aria-label": say("Search prompts, replies, comments"),
      maxlength: 200,
      "data-testid": "ratings-search",
      oninput: () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.settle(), TYPING_MS);
      },
    });
    this.fields = {
      person: this.#select("person", say("Person"), say("Everybody")),
      only: this.#select("only", say("Kind"), say("Of any kind")),
      label: this.#select("label", say("Label"), say("Any label")),
      version: this.#select("version", say("Version"), say("Any version")),
      since: this.#day("since", say("From")),
      until: this.#day("until", say("To")),
    };
    this.conversation = button("", () => this.#set("conversation", ""), {
      kind: "outline small",
      testid: "filter-conversation",
      title: say("List other conversations too"),
    });
    this.clear = button(say("Clear"), () => this.#setAll({ ...EVERYTHING, kind: this.values.kind }), {
      kind: "link",
      testid: "clear-filters",
    });
    const { since, until, ...selects } = this.fields;
    this.more = el(
      "details",
      { class: "more-filters", "data-testid": "more-filters" },
      el("summary", {}, say("Filters")),
      el(
        "div",
        { class: "filter-fields" },
        Object.values(selects).map((field) => field.box),
        el("div", { class: "days" }, since.box, until.box),
      ),
    );
    this.element = el(
      "div",
      { class: "filters", role: "search", "aria-label": say("Ratings") },
      this.kinds,
      this.search,
      this.more,
      this.conversation,
      this.clear,
    );
    this.fill("only", [
      ["all_bad", say("All bad")],
      ["ordered", say("With an order")],
      ["commented", say("With a comment")],
    ]);
    this.#draw();
    this.more.open = isFiltered({ ...this.values, q: "", conversation: "" });
  }

  #select(name, label, none) {
    const field = el(
      "select",
      { class: "field", "data-testid": `filter-${name}`, onchange: () => this.#set(name, field.value) },
      el("option", { value: "" }, none),
    );
    return { field, box: el("label", { class: "filter" }, el("span", { class: "hint" }, label), field) };
  }

  #day(name, label) {
    const field = el("input", {
      type: "date",
      class: "field",
      "data-testid": `filter-${name}`,
      onchange: () => this.#set(name, field.value),
    });
    return { field, box: el("label", { class: "filter" }, el("span", { class: "hint" }, label), field) };
  }

  /** Give a select its options, as [value, text], behind the one that filters nothing. */
  fill(name, options) {
    const { field, box } = this.fields[name];
    while (field.options.length > 1) field.lastChild.remove();
    const values = options.map(([value]) => value);
    const chosen = this.values[name];
    // What is set stays choosable, also when no rating has it any more.
    const all = chosen && !values.includes(chosen) ? [...options, [chosen, chosen]] : options;
    field.append(...all.map(([value, text]) => el("option", { value }, text)));
    field.value = chosen;
    box.hidden = all.length === 0;
  }

  /** Ask which people, labels and versions there are. */
  async loadChoices() {
    let choices;
    try {
      choices = await call("GET", "/api/rankings/choices");
    } catch {
      return; // the filters that are there still work
    }
    const plain = (names) => names.map((name) => [name, name]);
    this.isTeam = choices.people.length > 1;
    this.fill("person", this.isTeam ? plain(choices.people) : []);
    this.fill("label", choices.labels.map((label) => [label, labelText(label)]));
    this.fill("version", plain(choices.versions));
  }

  /** Search now for what was typed a moment ago. */
  settle() {
    clearTimeout(this.typing);
    this.#set("q", this.search.value.trim());
  }

  #set(name, value) {
    if (this.values[name] === value) return;
    this.#setAll({ ...this.values, q: this.search.value.trim(), [name]: value });
  }

  #setAll(values) {
    clearTimeout(this.typing);
    this.values = values;
    this.#draw();
    this.changed(values);
  }

  #draw() {
    for (const one of this.kinds.children)
      one.setAttribute("aria-pressed", String(one.dataset.kind === this.values.kind));
    if (this.search.value.trim() !== this.values.q) this.search.value = this.values.q;
    for (const [name, { field }] of Object.entries(this.fields)) field.value = this.values[name];
    const isOfRankings = this.values.kind === "rankings";
    for (const name of ["only", "label", "version"])
      this.fields[name].box.classList.toggle("is-idle", !isOfRankings);
    this.conversation.hidden = !this.values.conversation;
    this.conversation.textContent = say("Conversation {id} \u00d7", { id: this.values.conversation });
    this.clear.hidden = !isFiltered(this.values);
  }

  /** The filters as the query of a request. */
  query() {
    const { kind, q, person, since, until, only, label, version, conversation } = this.values;
    const query = new URLSearchParams();
    const add = (name, value) => value && query.set(name, value);
    add("q", q);
    if (person) query.set("person", person);
    else query.set("everybody", "true");
    add("since", since && startOfDay(since, 0));
    add("until", until && startOfDay(until, 1));
    add("conversation", conversation);
    if (kind !== "rankings") return query;
    if (only === "all_bad") query.set("all_bad", "true");
    if (only === "ordered") query.set("all_bad", "false");
    if (only === "commented") query.set("commented", "true");
    add("label", label);
    add("version", version);
    return query;
  }
}

/** The moment when a day of this place begins, or the day some days after it. */
function startOfDay(day, after) {
  const [year, month, date] = day.split("-").map(Number);
  const moment = new Date(0);
  moment.setFullYear(year, month - 1, date + after);
  moment.setHours(0, 0, 0, 0);
  return Number.isNaN(moment.getTime()) ? "" : moment.toISOString();
}
