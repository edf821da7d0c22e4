// Ratings in from a file: chosen or dropped, watched line by line, and taken back as a whole.

import { call, messageOf, upload } from "./api.js";
import { button, el, toast } from "./dom.js";
import { bytesText } from "./ratings_export.js";
import { moment } from "./times.js";
import { locale, say } from "./words.js";

const LARGEST = 50_000_000; // what the server takes; the command line takes larger files
const ERRORS_SHOWN = 100;

export class ImportPanel {
  /** `hooks`: changed() after rows have come or gone, failed(message). */
  constructor(hooks) {
    this.hooks = hooks;
    this.running = null;
    this.file = el("input", {
      type: "file",
      id: "import-file",
      class: "sr-only",
      accept: ".jsonl,.json,.parquet,.gz,.txt",
      "data-testid": "import-file",
      onchange: () => this.#import([...this.file.files]),
    });
    this.mine = el("input", { type: "checkbox", "data-testid": "import-mine" });
    this.zone = el(
      "div",
      { class: "drop-zone", "data-testid": "drop-zone" },
      el("label", { for: "import-file", class: "button outline" }, say("Choose a file")),
      this.file,
      el("span", { class: "hint" }, say("or drop it here: this program's export, hh-rlhf, TRL, Argilla, Label Studio, Open WebUI; JSON Lines, JSON or Parquet.")),
    );
    this.bar = el("progress", { class: "progress", max: 1, "aria-label": say("Import"), hidden: true });
    this.text = el("p", { role: "status", "data-testid": "import-text" });
    this.errors = el("ul", { class: "line-errors", "data-testid": "import-errors", hidden: true });
    this.past = el("ul", { class: "past-imports" });
    this.pastBox = el("div", { hidden: true }, el("h4", {}, say("Imports so far")), this.past);
    this.element = el(
      "section",
      { class: "panel files", "aria-label": say("Import"), "data-testid": "import-panel", hidden: true },
      el("h3", {}, say("Import")),
      this.zone,
      el(
        "label",
        { class: "choice" },
        this.mine,
        el("span", {}, say("All ratings in the file are my own, whoever gave them")),
      ),
      this.bar,
      this.text,
      this.errors,
      this.pastBox,
    );
    this.#listenForDrops();
  }

  show(isWanted) {
    this.element.hidden = !isWanted;
    if (isWanted) this.#listPast();
  }

  #listenForDrops() {
    const stop = (event) => {
      event.preventDefault();
      this.zone.classList.toggle("is-over", event.type === "dragover");
    };
    this.zone.addEventListener("dragover", stop);
    this.zone.addEventListener("dragleave", stop);
    this.zone.addEventListener("drop", (event) => {
      stop(event);
      this.#import([...event.dataTransfer.files]);
    });
  }

  async #import([file, ...more]) {
    this.file.value = "";
    if (!file || this.running) return;
    this.#showErrors({ failed: 0, errors: [] });
    if (more.length) this.text.textContent = say("One file at a time: {name} is imported.", { name: file.name });
    if (file.size > LARGEST) {
      this.text.textContent = say(
        "{name} has {size}; at most {limit} are taken here. Run: chatrlhf import {name}",
        { name: file.name, size: bytesText(file.size), limit: bytesText(LARGEST) },
      );
      return;
    }
    this.running = file.name;
    this.bar.hidden = false;
    this.bar.removeAttribute("value");
    this.text.textContent = say("Sending {name}, {size}", { name: file.name, size: bytesText(file.size) });
    try {
      await this.#follow(file);
    } catch (error) {
      this.text.textContent = say("Not imported: {why}", { why: messageOf(error) });
    }
    this.running = null;
    this.bar.hidden = true;
    this.hooks.changed();
    this.#listPast();
  }

  async #follow(file) {
    const query = new URLSearchParams({ name: file.name, mine: this.mine.checked });
    let report = null;
    for await (const { event, data } of upload(`/api/import?${query}`, file)) {
      if (event === "error") {
        this.text.textContent = say("Not imported: {why}", { why: data.error.message });
        return;
      }
      report = data;
      this.bar.value = data.fraction;
      this.text.textContent =
        event === "import.done" ? doneText(file.name, data) : say("{n} records read", { n: data.records.toLocaleString(locale) });
      if (event === "import.done") this.#showErrors(data);
    }
    if (report === null || report.fraction < 1)
      this.text.textContent = say("The connection broke off. Import the file again: what is here is recognised.");
  }

  #showErrors({ failed, errors }) {
    this.errors.hidden = failed === 0;
    this.errors.replaceChildren(
      ...errors.slice(0, ERRORS_SHOWN).map(({ line, message }) =>
        el("li", {}, el("b", {}, say("Line {line}", { line })), el("span", {}, ` ${message}`)),
      ),
    );
    const more = failed - Math.min(errors.length, ERRORS_SHOWN);
    if (more > 0) this.errors.append(el("li", { class: "hint" }, say("and {n} more", { n: more.toLocaleString(locale) })));
  }

  // --- imports that were made -----------------------------------------------------------------

  async #listPast() {
    let imports;
    try {
      imports = await call("GET", "/api/imports?limit=20");
    } catch (error) {
      if (!error.isConnectionLost) this.hooks.failed(messageOf(error));
      return;
    }
    this.pastBox.hidden = imports.length === 0;
    this.past.replaceChildren(...imports.map((one) => this.#pastRow(one)));
  }

  #pastRow(one) {
    const undo = button(say("Undo"), () => this.#undo(one, undo), {
      kind: "link",
      testid: "undo-import",
      title: say("Erase all that this import brought"),
    });
    const what = { running: say("broke off"), undone: say("taken back"), done: addedText(one.report) };
    return el(
      "li",
      { "data-testid": "past-import", "data-state": one.state },
      el("b", { dir: "auto" }, one.name || say("Import {id}", { id: one.import_id })),
      el("span", { class: "hint" }, `${moment(one.created_at)}, ${what[one.state]}`),
      one.state !== "undone" && broughtAnything(one) && undo,
    );
  }

  async #undo(one, undo) {
    undo.disabled = true;
    this.text.textContent = say("Taking {name} back", { name: one.name });
    try {
      await call("POST", `/api/imports/${one.import_id}/undo`);
      this.text.textContent = "";
      toast(say("{name} is taken back. Versions that had learned from it are marked.", { name: one.name }));
      this.hooks.changed();
    } catch (error) {
      this.text.textContent = "";
      this.hooks.failed(messageOf(error));
    }
    this.#listPast();
  }
}

function doneText(name, report) {
  const parts = [say("{name}: {n} records read.", { name, n: report.records.toLocaleString(locale) }), addedText(report) + "."];
  if (report.duplicates) parts.push(say("Here already: {n}.", { n: report.duplicates.toLocaleString(locale) }));
  if (report.failed) parts.push(say("Refused lines: {n}.", { n: report.failed.toLocaleString(locale) }));
  return parts.join(" ");
}

/** An import that broke off has told nothing. */
function broughtAnything({ state, report }) {
  return state === "running" || Object.values(report.added).some((n) => n > 0);
}

/** "12 rankings, 3 written replies are new" */
function addedText({ added }) {
  const number = (n, one, many) => (n === 1 ? one : many(n.toLocaleString(locale)));
  const kinds = {
    rankings: (k) => number(k, say("1 ranking"), (n) => say("{n} rankings", { n })),
    demonstrations: (k) => number(k, say("1 written reply"), (n) => say("{n} written replies", { n })),
    labels: (k) => number(k, say("1 label"), (n) => say("{n} labels", { n })),
    prompts: (k) => number(k, say("1 prompt"), (n) => say("{n} prompts", { n })),
  };
  const parts = Object.entries(kinds)
    .filter(([kind]) => added?.[kind])
    .map(([kind, words]) => words(added[kind]));
  return parts.length ? say("New: {what}", { what: parts.join(", ") }) : say("Nothing new");
}
