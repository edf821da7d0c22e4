// What the sections of the People screen share: panels, fields, tables, times, copying.

import { button, el, toast } from "./dom.js";
import { say } from "./words.js";

/** A panel with a heading, and what stands beside the heading. */
export function panel(testid, heading, beside, ...content) {
  return el(
    "section",
    { class: "panel", "data-testid": testid },
    el("div", { class: "panel-head" }, el("h2", {}, heading), beside),
    content,
  );
}

/** A labelled input; gives {input, element}. */
export function labelled(label, attributes = {}, tag = "input", ...children) {
  const input = el(tag, { class: "field", ...attributes }, children);
  return { input, element: el("label", { class: "labelled" }, el("span", {}, label), input) };
}

/** A form whose button is off while it is sent; `send` gives a promise. */
export function smallForm(fields, label, testid, send) {
  const submit = button(label, null, { kind: "primary", testid });
  submit.type = "submit";
  const onsubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await send();
    } finally {
      submit.disabled = false;
    }
  };
  return el(
    "form",
    { class: "small-form", method: "post", onsubmit },
    fields.map(({ element }) => element),
    submit,
  );
}

/** A table: `heads` are texts, `rows` lists of cells (texts or nodes), each with attributes. */
export function table(kind, heads, rows) {
  const cells = (row) =>
    row.cells.map((cell, index) => el(index ? "td" : "th", index ? {} : { scope: "row" }, cell));
  return el(
    "div",
    { class: "table-scroll" },
    el(
      "table",
      { class: `people-table ${kind}` },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((text) => (text ? el("th", { scope: "col" }, text) : el("td", {}))),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", row.attributes, cells(row))),
      ),
    ),
  );
}

/** A cell that says on a phone, where there is no head, what it is. */
export function named(name, value) {
  return [el("span", { class: "cell-name" }, name), el("span", { dir: "auto" }, value)];
}

/** A secret that is shown this once, to be copied. */
export function secretBox(testid, words, secret) {
  const input = el("input", {
    class: "field secret",
    readonly: true,
    value: secret,
    "aria-label": words,
    "data-testid": testid,
    onfocus: () => input.select(),
  });
  const copy = async () => {
    input.select();
    try {
      await navigator.clipboard.writeText(secret);
      toast(say("Copied."));
    } catch {
      toast(say("It is selected: copy it with your keyboard.")); // plain http has no clipboard
    }
  };
  return el(
    "div",
    { class: "secret-box" },
    el("p", {}, words),
    el("div", { class: "secret-row" }, input, button(say("Copy"), copy, { kind: "outline" })),
  );
}
