// One round of the trainer: its timeline, its curves and the replies it sampled.

import { ApiError, call, listOf } from "./api.js";
import { Chart, compareNames, isMain, short, termName } from "./charts.js";
import { el, showText } from "./dom.js";
import { stageName } from "./health.js";
import { clock } from "./times.js";
import { whyButton } from "./why.js";
import { say } from "./words.js";

const MARKS = { gate_passed: say("passed"), gate_failed: say("failed"), error: say("failed"), info: "" };
const SAMPLES_SHOWN = 12;

export class RoundView {
  constructor(id) {
    this.id = id;
    this.newestMetric = 0;
    this.charts = new Map();
    this.timeline = el("ol", { class: "timeline", "data-testid": "timeline" });
    this.curves = el("div", { class: "curves", "data-testid": "curves" });
    this.samples = el("div", { class: "samples", "data-testid": "samples" });
    this.samplesTitle = el("summary", {}, el("h3", {}, say("Replies it tried")));
    this.samplesFold = el("details", { open: true }, this.samplesTitle, this.samples);
    this.element = el(
      "div",
      {},
      el("section", {}, el("h3", {}, say("What happened")), this.timeline),
      el("section", {}, el("h3", {}, say("Curves")), this.curves),
      el("section", {}, this.samplesFold),
    );
  }

  /** Fetch what is new. Raises ApiError when the server refuses or is away. */
  async refresh(round) {
    const [events, metrics, samples] = await Promise.all([
      call("GET", `/api/rounds/${this.id}/events`),
      call("GET", `/api/rounds/${this.id}/metrics?after=${this.newestMetric}`),
      call("GET", `/api/rounds/${this.id}/samples`).catch(emptyWhenUnknown),
    ]);
    this.#drawTimeline(listOf(events, "events"), round);
    this.#addMetrics(listOf(metrics, "metrics"), round);
    this.#drawSamples(listOf(samples, "samples"), round);
  }

  /** Whether the round measured anything in a stage. */
  hasStage(stage) {
    return [...this.charts.keys()].some((name) => name.startsWith(`${stage}/`));
  }

  // --- timeline -------------------------------------------------------------------------------

  #drawTimeline(events, round) {
    const items = events.map((event) =>
      el(
        "li",
        { "data-kind": event.kind, "data-testid": "event" },
        el("span", { class: "event-mark" }, MARKS[event.kind] ?? ""),
        textOf("span", "event-text", withArrows(eventText(event))),
        el("time", { datetime: event.created_at }, clock(event.created_at)),
      ),
    );
    if (!items.length) {
      const text = isOver(round)
        ? round.message || say("Nothing was written down in this round.")
        : say("The round has just been asked for. Its first step begins shortly.");
      items.push(
        el(
          "li",
          { "data-kind": "info" },
          el("span", { class: "event-mark" }),
          textOf("span", "event-text", text),
        ),
      );
    }
    const key = JSON.stringify([events.at(-1)?.id, events.length, round.state]);
    if (key !== this.drawnTimeline) this.timeline.replaceChildren(...items);
    this.drawnTimeline = key;
  }

  // --- curves ---------------------------------------------------------------------------------

  #addMetrics(metrics, round) {
    const fresh = new Map();
    for (const { id, stage, step, name, value } of metrics) {
      this.newestMetric = Math.max(this.newestMetric, id);
      const key = name.includes("/") ? name : `${stage}/${name}`;
      fresh.set(key, [...(fresh.get(key) ?? []), { step, value: value ?? NaN }]);
    }
    const before = this.charts.size;
    for (const [key, points] of fresh) {
      if (!this.charts.has(key)) this.charts.set(key, new Chart(key));
      this.charts.get(key).add(points);
    }
    if (this.charts.size > before || !this.charts.size) this.#layOut(round);
  }

  #layOut(round) {
    const names = [...this.charts.keys()].sort(compareNames);
    if (!names.length) {
      const text = isOver(round)
        ? say("This round ended before it measured anything.")
        : say("No numbers yet. The first curve appears with the first training step.");
      this.curves.replaceChildren(el("p", { class: "hint" }, text));
      return;
    }
    const stages = [...new Set(names.map((name) => name.split("/")[0]))];
    const grid = (some) =>
      el(
        "div",
        { class: "chart-grid" },
        some.map((name) => this.charts.get(name).element),
      );
    const wasOpen = new Set(
      [...this.curves.querySelectorAll("details[open]")].map((details) => details.dataset.stage),
    );
    this.curves.replaceChildren(
      ...stages.flatMap((stage) => {
        const own = names.filter((name) => name.startsWith(`${stage}/`));
        const main = own.filter(isMain);
        const rest = own.filter((name) => !isMain(name));
        const more =
          rest.length > 0 &&
          el(
            "details",
            { "data-stage": stage, open: wasOpen.has(stage) || !main.length },
            el("summary", { class: "hint" }, moreText(rest.length)),
            grid(rest),
          );
        return [el("h4", {}, stageTitle(stage)), grid(main), more].filter(Boolean);
      }),
    );
  }

  // --- samples --------------------------------------------------------------------------------

  #drawSamples(samples, round) {
    const newest = samples.slice(-SAMPLES_SHOWN).reverse();
    const key = JSON.stringify([newest.length, newest[0], round.state]);
    if (key === this.drawnSamples) return;
    // They are worth watching as they come; afterwards they would hide what is below.
    if (this.drawnSamples === undefined || isOver(round)) this.samplesFold.open = !isOver(round);
    this.drawnSamples = key;
    if (!newest.length) {
      this.samples.replaceChildren(
        el(
          "p",
          { class: "hint" },
          isOver(round) ? say("This round sampled no replies.") : say("Replies appear here while PPO tries them."),
        ),
      );
      return;
    }
    const rows = newest.map((sample) =>
      el(
        "tr",
        {},
        el("td", { class: "numeric", "data-head": say("step") }, String(sample.step)),
        textOf("td", "sample-text", sample.prompt),
        textOf("td", "sample-text", sample.reply),
        el(
          "td",
          { class: "numeric", "data-head": say("reward") },
          sample.score == null ? "" : short(sample.score),
          termsOf(sample.terms ?? {}),
          isOver(round) && sample.score != null && whyOf(sample),
        ),
      ),
    );
    const head = [say("Step"), say("Prompt"), say("Reply"), say("Reward")].map((text) => el("th", { scope: "col" }, text));
    this.samples.replaceChildren(
      el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)),
    );
  }
}

/** What each term adds to a score, largest first; nothing where one term is all of it. */
function termsOf(terms) {
  const parts = Object.entries(terms).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  if (parts.length < 2) return false;
  return el(
    "ul",
    { class: "terms", "data-testid": "terms" },
    parts.map(([name, value]) =>
      el("li", {}, `${value < 0 ? "\u2212" : "+"}${short(Math.abs(value))} ${termName(name)}`),
    ),
  );
}

/** Why the live version scores the reply as it does; the round's own reward may be another. */
function whyOf({ prompt, reply }) {
  if (!prompt.trim()) return false;
  return whyButton({ messages: [{ role: "user", content: prompt }], replies: [reply] });
}

/** True when a round will not change any more. */
export function isOver(round) {
  return !["queued", "running"].includes(round.state);
}

function moreText(n) {
  return n === 1 ? say("1 more measurement") : say("{n} more measurements", { n });
}

function stageTitle(stage) {
  if (stage === "sft") return say("Imitation (SFT)");
  const name = stageName(stage);
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function emptyWhenUnknown(error) {
  if (error instanceof ApiError && error.status === 404) return [];
  throw error;
}

function textOf(tag, name, text) {
  const node = el(tag, { class: name, dir: "auto" });
  showText(node, text ?? "");
  return node;
}

/** What an event says, in the reader's language where the server sent sentences. */
function eventText({ text, data }) {
  const sentences = data?.sentences ?? [];
  return sentences.length ? sentences.map((one) => say(one.text, one.values)).join(" ") : text;
}

/** "0.1 -> 0.2" with a real arrow, which no line break can tear apart. */
export function withArrows(text) {
  return text.replaceAll(" -> ", " \u2192 ");
}
