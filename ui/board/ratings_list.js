// The rows of the list of ratings.

import { el, showText } from "./dom.js";
import { labelText } from "./label_words.js";
import { moment } from "./times.js";
import { say } from "./words.js";

const EXCERPT = 160;

/** A row of a ranking; `open()` is called when it is chosen. */
export function rankingRow(row, { isOpen, isTeam }, open) {
  const order = row.all_bad ? say("all bad") : row.order;
  const tags = [
    el("span", { class: row.all_bad ? "order is-bad" : "order" }, order),
    row.strength && el("span", { class: "tag" }, say("strength {n}", { n: row.strength })),
    ...row.labels.map((label) => el("span", { class: "tag" }, labelText(label))),
    isTeam && el("span", { class: "tag person" }, row.person),
    el("span", { class: "when" }, moment(row.created_at)),
  ];
  const comment = row.comment && excerpt("row-comment", row.comment);
  return rowOf(row.ranking_id, isOpen, open, [excerpt("row-prompt", row.prompt), comment], tags);
}

/** A row of a reply that somebody wrote. */
export function demonstrationRow(row, { isOpen, isTeam }, open) {
  const tags = [
    isTeam && el("span", { class: "tag person" }, row.person),
    el("span", { class: "when" }, moment(row.created_at)),
  ];
  const prompt = row.messages.at(-1)?.content ?? "";
  const texts = [excerpt("row-prompt", prompt), excerpt("row-comment", row.text)];
  return rowOf(row.demonstration_id, isOpen, open, texts, tags);
}

function rowOf(id, isOpen, open, texts, tags) {
  return el(
    "li",
    { "data-testid": "rating-row", "data-id": id },
    el(
      "button",
      { type: "button", class: "rating-row", "aria-current": isOpen ? "true" : null, onclick: open },
      texts,
      el("span", { class: "row-tags" }, tags),
    ),
  );
}

function excerpt(kind, text) {
  const short = text.length > EXCERPT ? `${text.slice(0, EXCERPT)}...` : text;
  const node = el("span", { class: kind, dir: "auto" });
  showText(node, short.replace(/\s+/g, " "));
  return node;
}

