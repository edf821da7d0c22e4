// Two versions answer one prompt, with the same seed, side by side. Not blind, so never counted.

import { ApiError, messageOf, stream } from "./api.js";
import { button, el } from "./dom.js";
import { ReplyText, replyText } from "./reply_text.js";
import { whyButton } from "./why.js";
import { say } from "./words.js";

/** Columns of replies: one a version that answers now, and stored ones as they are. */
export class SideBySide {
  constructor() {
    this.controller = null;
    this.columns = new Map();
    this.grid = el("div", { class: "side-grid", "data-testid": "side-by-side" });
    this.note = el("p", { class: "hint", role: "status" });
    this.element = el("div", { class: "side" }, this.grid, this.note);
  }

  get isRunning() {
    return this.controller !== null;
  }

  /**
   * Ask. `body` names versions and a text or a turn; `stored` are replies {title, text} to show
   * before them; `messages` is what was asked, for why-this-score.
   */
  async ask(body, { stored = [], messages = null } = {}) {
    this.stop();
    const controller = (this.controller = new AbortController());
    this.columns.clear();
    this.grid.replaceChildren(...stored.map((one) => column(one.title, one.text)));
    for (const version of body.versions) {
      const made = this.#column(version);
      this.columns.set(version, made);
      this.grid.append(made.element);
    }
    this.note.textContent = say("Both write with the same random numbers.");
    try {
      const events = stream("POST", "/api/versions/compare", { ...body, stream: true }, controller.signal);
      for await (const { event, data } of events) this.#take(event, data, messages);
      this.note.textContent = say("Side by side is not blind, so nothing of this is counted.");
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(messageOf(error));
    } finally {
      if (this.controller === controller) this.controller = null;
    }
  }

  stop() {
    this.controller?.abort();
    this.controller = null;
  }

  #column(version) {
    const body = new ReplyText({ testid: "side-text" });
    const foot = el("div", { class: "side-foot" });
    const element = el(
      "section",
      { class: "side-column is-writing", "data-version": version },
      el("h3", {}, version),
      body.element,
      foot,
    );
    return { element, body, foot };
  }

  #take(event, data, messages) {
    const own = this.columns.get(data.version);
    if (event === "delta") own.body.add(data.text);
    else if (event === "done") {
      own.body.set(data.text);
      own.element.classList.remove("is-writing");
      if (data.text === "") own.foot.append(el("span", { class: "hint" }, say("an empty reply")));
      if (data.finish_reason === "length")
        own.foot.append(el("span", { class: "hint" }, say("stopped at the length limit")));
      if (messages) own.foot.append(whyButton({ messages, replies: [data.text] }));
    } else if (event === "error")
      throw new ApiError(409, data.error?.code ?? "error", data.error?.message ?? "");
  }

  #fail(text) {
    for (const { element } of this.columns.values()) element.classList.remove("is-writing");
    this.note.textContent = text;
  }
}

function column(title, text) {
  return el("section", { class: "side-column is-stored" }, el("h3", {}, title), replyText(text));
}

/** The panel of the Training tab: two versions, a prompt, and what they say. */
export class Comparison {
  constructor() {
    this.side = new SideBySide();
    this.names = "";
    this.first = this.#picker(say("One version"), "compare-first");
    this.second = this.#picker(say("Another version"), "compare-second");
    this.prompt = el("textarea", {
      class: "field",
      rows: 2,
      dir: "auto",
      "aria-label": say("A prompt for both"),
      placeholder: say("A prompt for both"),
      "data-testid": "compare-prompt",
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#run();
      },
    });
    this.run = button(say("Compare"), () => this.#run(), { kind: "outline", testid: "compare-run" });
    this.hint = el("p", { class: "hint" });
    this.form = el(
      "div",
      { class: "compare-form" },
      el("div", { class: "compare-pickers" }, this.first, el("span", {}, say("beside")), this.second),
      this.prompt,
      this.run,
    );
    this.element = el("div", { "data-testid": "comparison" }, this.hint, this.form, this.side.element);
  }

  #picker(label, testid) {
    return el("select", { class: "field", "aria-label": label, "data-testid": testid });
  }

  /** Take over the versions there are, newest first. */
  update(versions, live) {
    const usable = versions.filter(({ state }) => ["ready", "candidate", "rejected"].includes(state));
    const names = usable.map(({ name }) => name).join(" ");
    this.form.hidden = usable.length < 2;
    this.hint.textContent =
      usable.length < 2
        ? say("There is one version so far. When training has made a second, both can answer here.")
        : say("Both answer the same prompt with the same random numbers.");
    if (names === this.names) return;
    const before = [this.first.value, this.second.value];
    this.names = names;
    const older = usable.find((version) => version.previous) ?? usable.find(({ name }) => name !== live);
    const wanted = [before[0] || live, before[1] || older?.name];
    for (const [index, select] of [this.first, this.second].entries()) {
      select.replaceChildren(
        ...usable.map(({ name }) => el("option", { value: name, selected: name === wanted[index] }, name)),
      );
    }
  }

  async #run() {
    const text = this.prompt.value.trim();
    if (!text) return this.prompt.focus();
    const versions = [...new Set([this.first.value, this.second.value])];
    const messages = [{ role: "user", content: text }];
    await this.side.ask({ versions, text }, { messages });
  }
}
