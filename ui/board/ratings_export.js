// Everything that people said, as a file: which form, how large, how far.

import { call, download, messageOf } from "./api.js";
import { button, el, toast } from "./dom.js";
import { locale, say } from "./words.js";

// The browser itself saves what is larger, without passing through this page's memory.
const LARGEST_IN_PAGE = 300e6;
const FILE_NAME = /filename="([^"]+)"/;

const formats = () => [
  ["jsonl", "JSON Lines", say("everything; can be imported again")],
  ["parquet", "Parquet", say("everything; for datasets, pandas, DuckDB")],
  ["trl", say("TRL preference"), say("a line for each ordered pair: RewardTrainer, DPOTrainer")],
  ["trl-sft", say("TRL prompt-completion"), say("a line for each written reply: SFTTrainer")],
];

export class ExportPanel {
  constructor(hooks) {
    this.hooks = hooks;
    this.running = null; // AbortController of the export that runs
    this.sizes = {};
    const name = "export-format";
    this.choices = formats().map(([value, title, text]) => {
      const size = el("span", { class: "hint numeric", "data-testid": `size-${value}` });
      this.sizes[value] = size;
      return el(
        "label",
        { class: "choice" },
        el("input", { type: "radio", name, value, checked: value === "jsonl", "data-testid": `format-${value}` }),
        el("span", {}, el("b", {}, title), el("span", { class: "hint" }, ` ${text}`)),
        size,
      );
    });
    this.start = button(say("Export"), () => this.#export(), { kind: "primary", testid: "export-start" });
    this.stop = button(say("Cancel"), () => this.running?.abort(), { kind: "outline", testid: "export-cancel" });
    this.bar = el("progress", { class: "progress", max: 1, "aria-label": say("Export") });
    this.text = el("span", { class: "hint", role: "status", "data-testid": "export-text" });
    this.element = el(
      "section",
      { class: "panel files", "aria-label": say("Export"), "data-testid": "export-panel", hidden: true },
      el("h3", {}, say("Export")),
      el("fieldset", {}, el("legend", { class: "sr-only" }, say("Format")), this.choices),
      el("div", { class: "files-foot" }, this.start, this.stop, this.text),
      this.bar,
    );
    this.#draw();
  }

  show(isWanted) {
    this.element.hidden = !isWanted;
    if (isWanted) this.#askSizes();
  }

  async #askSizes() {
    for (const [format, node] of Object.entries(this.sizes)) {
      try {
        node.textContent = sizeText(await call("GET", `/api/export/size?format=${format}`));
      } catch (error) {
        node.textContent = "";
        if (!error.isConnectionLost) this.hooks.failed(messageOf(error));
      }
    }
  }

  #draw() {
    this.start.hidden = this.running !== null;
    this.stop.hidden = this.bar.hidden = this.running === null;
  }

  async #export() {
    const format = this.element.querySelector("input:checked").value;
    this.text.textContent = "";
    this.running = new AbortController();
    this.#draw();
    try {
      const path = `/api/export?format=${format}`;
      const size = await call("GET", `/api/export/size?format=${format}`);
      if (size.bytes > LARGEST_IN_PAGE) save(new URL(path.slice(1), new URL(".", document.baseURI)).href, "");
      else await this.#fetch(path, size.bytes);
    } catch (error) {
      if (error.name === "AbortError") this.text.textContent = say("Cancelled. Nothing was saved.");
      else this.text.textContent = say("Not exported: {why}", { why: messageOf(error) });
    }
    this.running = null;
    this.#draw();
  }

  async #fetch(path, expected) {
    const response = await download(path, this.running.signal);
    const name = FILE_NAME.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "chatrlhf";
    const parts = [];
    let size = 0;
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
      this.bar.value = Math.min(0.99, size / Math.max(expected, 1));
      this.text.textContent = say("{done} of about {all}", { done: bytesText(size), all: bytesText(expected) });
    }
    const url = URL.createObjectURL(new Blob(parts));
    save(url, name);
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    this.text.textContent = say("{name} is saved, {size}.", { name, size: bytesText(size) });
    toast(this.text.textContent);
  }
}

function save(href, name) {
  const link = el("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

function sizeText({ records, bytes, exact }) {
  if (records === 0) return say("nothing yet");
  const size = exact ? bytesText(bytes) : say("about {size}", { size: bytesText(bytes) });
  const n = records.toLocaleString(locale);
  return n === "1" ? say("1 record, {size}", { size }) : say("{n} records, {size}", { n, size });
}

/** "312 B", "4.1 kB", "12 MB" */
export function bytesText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const unit = bytes < 999_500 ? ["kB", 1e3] : bytes < 999_500_000 ? ["MB", 1e6] : ["GB", 1e9];
  return `${Number((bytes / unit[1]).toPrecision(2)).toLocaleString(locale)} ${unit[0]}`;
}
