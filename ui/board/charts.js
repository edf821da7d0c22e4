// Small line charts in SVG: one metric each, drawn without any library.

import { el, svg } from "./dom.js";
import { labelText } from "./label_words.js";
import { say } from "./words.js";

const WIDTH = 300;
const HEIGHT = 96;

const BEFORE_AFTER = say("before, after");
const FALLS = say("should fall");
const RISES = say("should rise");
const GROWS = say("should grow slowly");
const NEARS_ONE = say("should rise to 1");
const OF_CURVES = [FALLS, RISES, GROWS, NEARS_ONE]; // hints that one number alone cannot keep

// Known metrics: title, and what to look for.
const KNOWN = {
  "sft/loss": [say("Imitation loss"), FALLS],
  "reward/loss": [say("Reward model loss"), FALLS],
  "reward/held_out_accuracy": [say("Held-out agreement"), say("0.5 is chance")],
  "ppo/score": [say("Reward of the replies"), RISES],
  "ppo/kl": [say("KL to the reference"), GROWS],
  "ppo/entropy": [say("Entropy"), say("near zero means collapse")],
  "ppo/policy_loss": [say("Policy loss"), say("hovers near zero")],
  "ppo/value_loss": [say("Value loss"), FALLS],
  "ppo/reply_tokens": [say("Reply length, tokens"), say("a steep rise is a warning")],
  "gates/score": [say("Score on held-out prompts"), BEFORE_AFTER],
  "gates/reply_tokens": [say("Reply length there, tokens"), BEFORE_AFTER],
  "gates/repetition": [say("Repeated phrases there"), BEFORE_AFTER],
  "gates/finished": [say("Replies that end there"), BEFORE_AFTER],
  "gates/kl": [say("KL to the version before"), say("within the budget")],
};

// Known, but only shown on demand.
const DETAILS = {
  "sft/grad_norm": [say("Gradient norm"), ""],
  "reward/calibration_error": [say("Calibration error"), say("near zero: its odds can be trusted")],
  "reward/length_correlation": [say("Correlation with length"), say("near zero: long is not good")],
  "reward/grad_norm": [say("Gradient norm"), ""],
  "reward/spread": [say("Spread of the ensemble"), say("how unsure the reward is")],
  "ppo/reward": [say("Reward less KL penalty"), RISES],
  "ppo/kl_coefficient": [say("KL coefficient"), say("adapts to the target")],
  "ppo/finished": [say("Replies that ended by themselves"), say("near 1 is best")],
  "ppo/loss": [say("Objective, all losses together"), say("no target of its own")],
  "ppo/kl_loss": [say("KL as a loss"), say("zero unless chosen")],
  "ppo/largest_approx_kl": [say("Largest KL of one update"), say("at most about ppo.stop_kl")],
  "ppo/stopped_early": [say("Batches cut short by their KL"), say("mostly 0")],
  "ppo/updates": [say("Updates made"), ""],
  "ppo/updates_planned": [say("Updates planned"), ""],
  "ppo/sampling_mismatch": [say("Drawing and measuring differ by"), say("rounding only")],
  "ppo/micro_batch": [say("Replies through the model at once"), say("a drop means memory ran out")],
  "ppo/clip_fraction": [say("Clipped policy updates"), say("mostly below a third")],
  "ppo/value_clip_fraction": [say("Clipped value updates"), ""],
  "ppo/approx_kl": [say("KL of one update"), say("small")],
  "ppo/explained_variance": [say("Explained variance of values"), NEARS_ONE],
  "ppo/first_ratio_error": [say("First ratio error"), say("zero, else sampling and training disagree")],
  "ppo/grad_norm": [say("Gradient norm"), ""],
  "gates/spread": [say("Spread of the ensemble there"), BEFORE_AFTER],
  "ppo/spread": [say("Spread of the ensemble"), say("a rise means the reward is out of its depth")],
};

const TERM = "ppo/term_";

/** Title and hint of a metric; unknown names are made readable. */
export function describe(name) {
  if (KNOWN[name] ?? DETAILS[name]) return KNOWN[name] ?? DETAILS[name];
  if (name.startsWith(TERM)) return [say("Term: {name}", { name: termName(name.slice(TERM.length)) }), say("before its weight")];
  const words = name.split("/").at(-1).replaceAll("_", " ");
  return [words.charAt(0).toUpperCase() + words.slice(1), ""];
}

/** The name of a term of the reward as people know it: "toxic" for "label:toxic". */
export function termName(name) {
  return name.startsWith("label:") ? labelText(name.slice("label:".length)) : name;
}

/** True for a metric that is worth its place at first sight. */
export function isMain(name) {
  return name in KNOWN;
}

/** Known metrics in their order, then the others by name. */
export function compareNames(a, b) {
  const known = [...Object.keys(KNOWN), ...Object.keys(DETAILS)];
  const place = (name) => (known.includes(name) ? known.indexOf(name) : known.length);
  return place(a) - place(b) || a.localeCompare(b);
}

/** A number short enough for an axis. */
export function short(value) {
  if (!Number.isFinite(value)) return say("not finite");
  const size = Math.abs(value);
  if (size > 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(0);
  return Number(size < 0.1 ? value.toFixed(3) : value.toPrecision(3)).toString();
}

export class Chart {
  constructor(name) {
    const [title, hint] = describe(name);
    this.title = title;
    this.hintText = hint;
    this.hint = el("span", {});
    this.points = []; // {step, value}
    this.latest = el("span", { class: "chart-value" });
    this.line = svg("polyline", { class: "chart-line" });
    this.zero = svg("line", { class: "chart-zero", x1: 0, x2: WIDTH });
    this.image = svg(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        onpointermove: (event) => this.#point(event),
        onpointerleave: () => this.#leave(),
      },
      this.zero,
      this.line,
    );
    this.dot = el("i", { class: "chart-dot", hidden: true });
    this.top = el("span", { class: "axis top" });
    this.middle = el("span", { class: "axis middle" });
    this.bottom = el("span", { class: "axis bottom" });
    this.steps = el("span", { class: "chart-steps" });
    this.element = el(
      "figure",
      { class: "chart", "data-testid": "chart", "data-name": name },
      el("figcaption", {}, el("span", { class: "chart-title" }, title), this.latest),
      el(
        "div",
        { class: "chart-plot" },
        el("div", { class: "chart-area" }, this.image, this.dot),
        this.top,
        this.middle,
        this.bottom,
      ),
      el("div", { class: "chart-foot" }, this.hint, this.steps),
    );
  }

  add(points) {
    this.points.push(...points);
    this.points.sort((a, b) => a.step - b.step);
    this.#draw();
  }

  #draw() {
    const finite = this.points.filter((point) => Number.isFinite(point.value));
    const last = this.points.at(-1);
    // One number is no curve.
    const isSingle = this.points.length === 1;
    this.element.classList.toggle("is-single", isSingle);
    this.hint.textContent = isSingle && OF_CURVES.includes(this.hintText) ? "" : this.hintText;
    this.latest.textContent = this.#latestText();
    this.steps.textContent = this.#stepsText();
    if (!finite.length) return;
    this.low = Math.min(...finite.map((point) => point.value));
    this.high = Math.max(...finite.map((point) => point.value));
    const [least, most] = [short(this.low), short(this.high)];
    // A constant curve is a line in the middle, named once: any other axis would be made up.
    const isConstant = this.low === this.high;
    this.element.classList.toggle("is-constant", isConstant);
    this.top.textContent = isConstant ? "" : most;
    this.middle.textContent = isConstant ? most : "";
    this.bottom.textContent = isConstant ? "" : least;
    if (isConstant) {
      this.low -= 1;
      this.high += 1;
    }
    this.line.setAttribute(
      "points",
      finite.map((point) => `${this.#x(point).toFixed(2)},${this.#y(point.value).toFixed(2)}`).join(" "),
    );
    const isAcrossZero = !isConstant && this.low < 0 && this.high > 0;
    this.zero.toggleAttribute("hidden", !isAcrossZero);
    for (const end of ["y1", "y2"]) this.zero.setAttribute(end, isAcrossZero ? this.#y(0) : -9);
    if (!this.isPointed) this.#leave();
    const range = isConstant
      ? say("{n} points, all {most}", { n: this.points.length, most })
      : say("{n} points from {least} to {most}", { n: this.points.length, least, most });
    this.image.setAttribute("aria-label", say("{title}: {range}, the last is {last}", { title: this.title, range, last: short(last.value) }));
  }

  #x(point) {
    const first = this.points[0].step;
    const span = this.points.at(-1).step - first;
    return span ? ((point.step - first) / span) * WIDTH : WIDTH / 2;
  }

  #y(value) {
    return HEIGHT - ((value - this.low) / (this.high - this.low)) * HEIGHT;
  }

  #mark(point) {
    this.dot.hidden = !Number.isFinite(point.value);
    this.dot.style.left = `${(this.#x(point) / WIDTH) * 100}%`;
    this.dot.style.top = `${(this.#y(point.value) / HEIGHT) * 100}%`;
  }

  #point(event) {
    if (!this.points.length) return;
    const box = this.image.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const nearest = this.points.reduce((best, point) =>
      Math.abs(this.#x(point) - x) < Math.abs(this.#x(best) - x) ? point : best,
    );
    this.isPointed = true;
    this.#mark(nearest);
    this.latest.textContent = short(nearest.value);
    this.steps.textContent = say("step {n}", { n: nearest.step });
  }

  #leave() {
    this.isPointed = false;
    this.dot.hidden = true;
    if (!this.points.length) return;
    this.latest.textContent = this.#latestText();
    this.steps.textContent = this.#stepsText();
  }

  /** Gates measure twice, before and after: both numbers are worth seeing. */
  #latestText() {
    const last = short(this.points.at(-1).value);
    return this.isBeforeAfter ? `${short(this.points[0].value)} \u2192 ${last}` : last;
  }

  #stepsText() {
    if (this.points.length === 1 || this.isBeforeAfter) return "";
    return say("steps {first} to {last}", { first: this.points[0].step, last: this.points.at(-1).step });
  }

  get isBeforeAfter() {
    return this.hintText === BEFORE_AFTER && this.points.length === 2;
  }
}
