// The training screen: the trainer's state in words, its rounds, and the versions they made.

import { call, listOf, messageOf } from "./api.js";
import { button, el, isShown, toast } from "./dom.js";
import { health, onHealth, pollHealth } from "./health.js";
import { RoundView, isOver } from "./round_view.js";
import { Comparison } from "./side_by_side.js";
import { STEPS, noRoundText, outcome, progressOf, stateText } from "./training_words.js";
import { byNewest, versionsTable } from "./versions_view.js";
import { say } from "./words.js";

export class Training {
  constructor(host) {
    this.rounds = [];
    this.versions = [];
    this.view = null;
    this.chosenRound = null; // null: the newest
    this.isRefreshing = false;
    this.sentence = el("p", { class: "state-text", role: "status", "data-testid": "training-state" });
    this.bar = el("progress", {
      class: "progress",
      max: 1,
      "aria-label": say("Progress of this stage"),
      hidden: true,
    });
    this.steps = el(
      "ol",
      { class: "steps", "aria-label": say("A round") },
      STEPS.map(([id, text]) => el("li", { "data-step": id }, text)),
    );
    this.train = button(say("Train now"), () => this.#do("POST", "/api/rounds", say("A round is asked for.")), {
      kind: "primary",
      testid: "train-now",
    });
    this.pause = button(say("Pause"), () => this.#togglePause(), { kind: "outline", testid: "pause" });
    this.rollback = button(say("Roll back"), () => this.#rollBack(), { kind: "outline", testid: "rollback" });
    this.errorText = el("span", {});
    this.error = el(
      "div",
      { class: "error-banner", role: "alert", "data-testid": "error-banner", hidden: true },
      this.errorText,
      button(say("Close"), () => this.#showError(""), { kind: "link" }),
    );
    this.picker = el("select", {
      class: "field",
      "aria-label": say("Round"),
      "data-testid": "round-picker",
      onchange: () => this.#choose(Number(this.picker.value)),
    });
    this.roundTitle = el("h2", {}, say("Rounds"));
    this.roundBody = el("div", { "data-testid": "round" });
    this.comparison = new Comparison();
    this.versionsBody = el("div", { class: "table-scroll", "data-testid": "versions" });
    host.append(this.#layOut());
    onHealth((state) => this.#onHealth(state));
    this.refresh();
  }

  #layOut() {
    const buttons = el("div", { class: "state-buttons" }, this.train, this.pause, this.rollback);
    return (this.element = el(
      "div",
      { class: "training", "data-testid": "training" },
      el(
        "div",
        { class: "training-inner" },
        this.error,
        el(
          "section",
          { class: "panel state" },
          el(
            "div",
            { class: "state-row" },
            el("div", { class: "state-words" }, el("h2", {}, say("Training")), this.sentence),
            buttons,
          ),
          this.bar,
          this.steps,
        ),
        el(
          "section",
          { class: "panel" },
          el("div", { class: "panel-head" }, this.roundTitle, this.picker),
          this.roundBody,
        ),
        el("section", { class: "panel" }, el("h2", {}, say("Versions")), this.versionsBody),
        el("section", { class: "panel" }, el("h2", {}, say("Compare two versions")), this.comparison.element),
      ),
    ));
  }

  // --- state in words -------------------------------------------------------------------------

  #onHealth(state) {
    const trainer = state.value?.trainer ?? {};
    const text = stateText(state);
    if (this.sentence.textContent !== text) this.sentence.textContent = text;
    const isRunning = trainer.state === "running" && !state.isLost;
    this.bar.hidden = !isRunning;
    if (isRunning && trainer.steps) this.bar.value = trainer.step / trainer.steps;
    else this.bar.removeAttribute("value");
    this.pause.textContent = trainer.state === "paused" ? say("Resume") : say("Pause");
    this.train.disabled =
      state.isLost || ["running", "queued"].includes(trainer.state) || state.value?.status !== "ok";
    this.pause.disabled = state.isLost || !state.value;
    this.#labelRollback(state);
    if (isShown(this.element) && !state.isLost) this.refresh();
  }

  #labelRollback({ value, isLost }) {
    const previous = this.versions.find(
      (version) => version.previous && version.name !== value?.live_version,
    );
    this.rollback.textContent = previous
      ? say("Roll back to {version}", { version: previous.name })
      : say("Roll back");
    this.rollback.disabled = isLost || value?.status !== "ok" || !previous;
  }

  #drawSteps(trainer) {
    const round = this.rounds[0];
    const { at, isFailed } = progressOf(trainer, round, this.versions);
    const isImitating = !round || this.#imitated(round);
    for (const [index, item] of [...this.steps.children].entries()) {
      item.classList.toggle("is-done", index < at);
      item.classList.toggle("is-now", index === at && trainer.state === "running");
      item.classList.toggle("is-failed", index === at && isFailed);
      if (item.dataset.step === "sft") item.hidden = !isImitating;
    }
  }

  /** A round asks for imitation as a rule, but leaves it out without new demonstrations. */
  #imitated(round) {
    const isPast = isOver(round) || ["reward", "ppo", "gates"].includes(round.stage);
    if (this.view?.id === round.id && isPast) return this.view.hasStage("sft");
    return round.stages.includes("sft");
  }

  // --- fetching -------------------------------------------------------------------------------

  async refresh() {
    if (this.isRefreshing) return;
    this.isRefreshing = true;
    try {
      const [rounds, versions] = await Promise.all([
        call("GET", "/api/rounds"),
        call("GET", "/api/versions"),
      ]);
      this.rounds = listOf(rounds, "rounds").sort((a, b) => b.id - a.id);
      this.versions = listOf(versions, "versions").sort(byNewest);
      this.#drawVersions();
      this.#labelRollback(health());
      await this.#drawRound();
      this.#drawSteps(health().value?.trainer ?? {});
    } catch (error) {
      if (!error.isConnectionLost) this.#showError(messageOf(error));
    } finally {
      this.isRefreshing = false;
    }
  }

  #drawVersions() {
    const live = health().value?.live_version ?? null;
    this.comparison.update(this.versions, live);
    const key = JSON.stringify([this.versions, live]);
    if (key === this.drawnVersions) return;
    this.drawnVersions = key;
    const hooks = { changed: () => this.refresh(), failed: (message) => this.#showError(message) };
    this.versionsBody.replaceChildren(versionsTable(this.versions, live, hooks));
  }

  async #drawRound() {
    this.picker.hidden = this.rounds.length < 2;
    const round = this.rounds.find((other) => other.id === this.chosenRound) ?? this.rounds[0];
    if (!round) {
      this.roundBody.replaceChildren(el("p", { class: "hint" }, noRoundText()));
      return;
    }
    this.#drawPicker(round);
    this.roundTitle.textContent =
      this.rounds.length > 1 ? say("Rounds") : titleOf(round, this.versions);
    if (this.view?.id !== round.id) {
      this.view = new RoundView(round.id);
      this.roundBody.replaceChildren(this.view.element);
    } else if (this.isSettled) return;
    await this.view.refresh(round);
    this.isSettled = isOver(round);
  }

  #drawPicker(round) {
    const key = JSON.stringify([
      this.rounds.map((other) => [other.id, outcome(other, this.versions)]),
      round.id,
    ]);
    if (key === this.drawnPicker) return;
    this.drawnPicker = key;
    this.picker.replaceChildren(
      ...this.rounds.map((other) =>
        el(
          "option",
          { value: other.id, selected: other.id === round.id },
          titleOf(other, this.versions),
        ),
      ),
    );
  }

  #choose(id) {
    this.chosenRound = id === this.rounds[0]?.id ? null : id;
    this.refresh();
  }

  // --- buttons --------------------------------------------------------------------------------

  async #do(method, path, words) {
    this.#showError("");
    try {
      const answer = await call(method, path, method === "POST" ? {} : undefined);
      this.chosenRound = null;
      toast(typeof words === "function" ? words(answer) : words);
      await pollHealth();
      await this.refresh();
    } catch (error) {
      this.#showError(messageOf(error));
    }
  }

  #togglePause() {
    const isPaused = health().value?.trainer?.state === "paused";
    if (isPaused) return this.#do("POST", "/api/trainer/resume", say("Training resumes."));
    return this.#do("POST", "/api/trainer/pause", say("Training is paused. Ratings are still stored."));
  }

  #rollBack() {
    return this.#do(
      "POST",
      "/api/versions/rollback",
      (answer) => say("Rolled back to {version}.", { version: answer.live_version }),
    );
  }

  #showError(text) {
    this.errorText.textContent = text;
    this.error.hidden = text === "";
  }
}

function titleOf(round, versions) {
  return say("Round {n}: {outcome}", { n: round.id, outcome: outcome(round, versions) });
}

/** Fill the Training tab. */
export function startTraining(host) {
  return new Training(host);
}
