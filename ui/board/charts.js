// Small line charts in SVG: one metric each, drawn without any library.

import { el, svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 96;

// Known metrics: title, and what to look for.
const KNOWN = {
  "sft/loss": ["Imitation loss", "should fall"],
  "reward/loss": ["Reward model loss", "should fall"],
  "reward/held_out_accuracy": ["Held-out agreement", "0.5 is chance"],
  "ppo/score": ["Reward of the replies", "should rise"],
  "ppo/kl": ["KL to the reference", "should grow slowly"],
  "ppo/entropy": ["Entropy", "near zero means collapse"],
  "ppo/policy_loss": ["Policy loss", "hovers near zero"],
  "ppo/value_loss": ["Value loss", "should fall"],
  "ppo/reply_tokens": ["Reply length, tokens", "a steep rise is a warning"],
};

// Known, but only shown on demand.
const DETAILS = {
  "sft/grad_norm": ["Gradient norm", ""],
  "reward/calibration_error": ["Calibration error", "near zero: its odds can be trusted"],
  "reward/length_correlation": ["Correlation with length", "near zero: long is not good"],
  "reward/grad_norm": ["Gradient norm", ""],
  "reward/spread": ["Spread of the ensemble", "how unsure the reward is"],
  "ppo/reward": ["Reward less KL penalty", "should rise"],
  "ppo/kl_coefficient": ["KL coefficient", "adapts to the target"],
  "ppo/finished": ["Replies that ended by themselves", "near 1 is best"],
  "ppo/loss": ["Objective, all losses together", "no target of its own"],
  "ppo/kl_loss": ["KL as a loss", "zero unless chosen"],
  "ppo/largest_approx_kl": ["Largest KL of one update", "at most about ppo.stop_kl"],
  "ppo/stopped_early": ["Batches cut short by their KL", "mostly 0"],
  "ppo/updates": ["Updates made", ""],
  "ppo/updates_planned": ["Updates planned", ""],
  "ppo/sampling_mismatch": ["Drawing and measuring differ by", "rounding only"],
  "ppo/micro_batch": ["Replies through the model at once", "a drop means memory ran out"],
  "ppo/clip_fraction": ["Clipped policy updates", "mostly below a third"],
  "ppo/value_clip_fraction": ["Clipped value updates", ""],
  "ppo/approx_kl": ["KL of one update", "small"],
  "ppo/explained_variance": ["Explained variance of values", "should rise to 1"],
  "ppo/first_ratio_error": ["First ratio error", "zero, else sampling and training disagree"],
  "ppo/grad_norm": ["Gradient norm", ""],
  "gates/score": ["Score on held-out prompts", "before, after"],
  "gates/reply_tokens": ["Reply length there, tokens", "before, after"],
  "gates/repetition": ["Repeated phrases there", "before, after"],
  "gates/finished": ["Replies that end there", "before, after"],
  "gates/spread": ["Spread of the ensemble there", "before, after"],
  "ppo/spread": ["Spread of the ensemble", "a rise means the reward is out of its depth"],
};

const TERM = "ppo/term_";

/** Title and hint of a metric; unknown names are made readable. */
export function describe(name) {
  if (KNOWN[name] ?? DETAILS[name]) return KNOWN[name] ?? DETAILS[name];
  if (name.startsWith(TERM)) return [`Term: ${termName(name.slice(TERM.length))}`, "before its weight"];
  const words = name.split("/").at(-1).replaceAll("_", " ");
  return [words.charAt(0).toUpperCase() + words.slice(1), ""];
}

/** The name of a term of the reward as people know it: "toxic" for "label:toxic". */
export function termName(name) {
  return name.replace(/^label:/, "");
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
  if (!Number.isFinite(value)) return "not finite";
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
    this.hint.textContent = isSingle && this.hintText.startsWith("should") ? "" : this.hintText;
    this.latest.textContent = short(last.value);
    this.steps.textContent = this.points.length === 1 ? "" : `steps ${this.points[0].step} to ${last.step}`;
    if (!finite.length) return;
    this.low = Math.min(...finite.map((point) => point.value));
    this.high = Math.max(...finite.map((point) => point.value));
    if (this.low === this.high) {
      const margin = Math.abs(this.low) * 0.1 || 1;
      this.low -= margin;
      this.high += margin;
    }
    this.top.textContent = short(this.high);
    this.bottom.textContent = short(this.low);
    this.line.setAttribute(
      "points",
      finite.map((point) => `${this.#x(point).toFixed(2)},${this.#y(point.value).toFixed(2)}`).join(" "),
    );
    const isAcrossZero = this.low < 0 && this.high > 0;
    this.zero.toggleAttribute("hidden", !isAcrossZero);
    for (const end of ["y1", "y2"]) this.zero.setAttribute(end, isAcrossZero ? this.#y(0) : -9);
    if (!this.isPointed) this.#leave();
    const range = `${this.points.length} points from ${short(this.low)} to ${short(this.high)}`;
    this.image.setAttribute("aria-label", `${this.title}: ${range}, the last is ${short(last.value)}`);
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
    this.steps.textContent = `step ${nearest.step}`;
  }

  #leave() {
    this.isPointed = false;
    this.dot.hidden = true;
    if (!this.points.length) return;
    this.latest.textContent = short(this.points.at(-1).value);
    const last = this.points.at(-1);
    this.steps.textContent = this.points.length === 1 ? "" : `steps ${this.points[0].step} to ${last.step}`;
  }
}
