// Prompts from a file or from pasted lines, with progress and an error for each line.

import { messageOf, upload } from "./api.js";
import { button, el } from "./dom.js";
import { loadTemplates, tagsOf, templateOptions } from "./queue_templates.js";
import { say } from "./words.js";

const ERRORS_SHOWN = 50;

export class PromptImport {
  /** `hooks`: imported(). */
  constructor(hooks) {
    this.hooks = hooks;
    this.element = el("section", { class: "panel editor", hidden: true, "data-testid": "prompt-import" });
    this.isDrawn = false;
    this.isRunning = false;
  }

  async open() {
    this.element.hidden = false;
    if (this.isDrawn) return;
    try {
      this.#draw(await loadTemplates());
      this.isDrawn = true;
    } catch (error) {
      this.element.replaceChildren(el("p", { class: "field-error", role: "alert" }, messageOf(error)));
    }
  }

  close() {
    this.element.hidden = true;
  }

  #draw(templates) {
    this.file = el("input", {
      type: "file",
      class: "field",
      id: "pool-import-file",
      accept: ".txt,.csv,.tsv,.jsonl,.ndjson,.json,.gz,.parquet",
      "data-testid": "import-file",
    });
    this.pasted = el("textarea", {
      class: "field",
      rows: 4,
      dir: "auto",
      "aria-label": say("Prompts, one a line"),
      placeholder: say("... or paste prompts here, one a line"),
      "data-testid": "import-text",
    });
    this.kind = el("select", { class: "field", id: "import-kind", "data-testid": "import-kind" });
    this.kind.append(...templateOptions(templates));
    this.tags = el("input", {
      class: "field",
      id: "import-tags",
      placeholder: say("separated by commas"),
      "data-testid": "import-tags",
    });
    this.bar = el("progress", { class: "progress", max: 1, hidden: true, "aria-label": say("Import") });
    this.result = el("p", { role: "status", "data-testid": "import-result" });
    this.errors = el("ul", { class: "line-errors", "data-testid": "import-errors" });
    this.start = button(say("Import"), () => this.#run(), { kind: "primary", testid: "import-start" });
    this.element.replaceChildren(
      el("h2", {}, say("Import prompts")),
      el(
        "p",
        { class: "hint" },
        say(
          "Text with one prompt a line, CSV with a column text, or JSON Lines. What the pool has already is left out.",
        ),
      ),
      el("label", { class: "label", for: "pool-import-file" }, say("A file with prompts")),
      this.file,
      this.pasted,
      el("label", { class: "label", for: "import-kind" }, say("Each is the text of this task")),
      this.kind,
      el("label", { class: "label", for: "import-tags" }, say("Tags for all of them")),
      this.tags,
      this.bar,
      this.result,
      this.errors,
      el(
        "div",
        { class: "editor-foot" },
        el("span", { class: "space" }),
        button(say("Close"), () => this.close()),
        this.start,
      ),
    );
  }

  async #run() {
    if (this.isRunning) return;
    const file = this.file.files[0] ?? null;
    const content = file ?? new Blob([this.pasted.value]);
    if (!file && !this.pasted.value.trim()) {
      this.result.textContent = say("Choose a file, or paste some lines first.");
      return;
    }
    this.isRunning = true;
    this.start.disabled = true;
    this.bar.hidden = false;
    this.bar.value = 0;
    this.errors.replaceChildren();
    const query = new URLSearchParams({ name: file?.name ?? "pasted.txt", template: this.kind.value });
    for (const tag of tagsOf(this.tags.value)) query.append("tag", tag);
    try {
      for await (const { event, data } of upload(`/api/prompts/import?${query}`, content)) {
        if (event === "error") throw new Error(data.error.message);
        this.bar.value = data.fraction;
        this.result.textContent = resultText(data);
        if (event === "import.done") this.#done(data);
      }
    } catch (error) {
      this.result.textContent = error.status === undefined ? error.message : messageOf(error);
    } finally {
      this.isRunning = false;
      this.start.disabled = false;
      this.bar.hidden = true;
    }
  }

  #done(report) {
    const shown = report.errors.slice(0, ERRORS_SHOWN);
    this.errors.replaceChildren(
      ...shown.map(({ line, message }) =>
        el("li", {}, say("Line {line}: {message}", { line, message })),
      ),
    );
    if (report.failed > shown.length)
      this.errors.append(el("li", {}, say("... and {n} more", { n: report.failed - shown.length })));
    if (!report.failed) {
      this.pasted.value = "";
      this.file.value = "";
    }
    this.hooks.imported();
  }
}

/** "3 prompts added, 1 was there already, 2 lines were refused." */
export function resultText({ added, duplicates, failed }) {
  return say("New: {added}. In the pool already: {duplicates}. Refused lines: {failed}.", {
    added,
    duplicates,
    failed,
  });
}
