// What the training screen says: the trainer's state, how far a round came, what became of it.

import { count } from "./dom.js";
import { health, progressText } from "./health.js";
import { isOver } from "./round_view.js";

/** The steps of a round: stage, and its name. */
export const STEPS = [
  ["ratings", "New ratings"],
  ["sft", "Imitation"],
  ["reward", "Reward model"],
  ["ppo", "PPO"],
  ["gates", "Gates"],
  ["live", "Live"],
];

/** The trainer's state in a sentence or two. */
export function stateText({ value, isLost }) {
  if (isLost) return "Connection lost, retrying. What is shown may be old.";
  if (!value) return "Asking the server.";
  if (value.status === "loading") return "The model is loading. Training can begin when it is ready.";
  if (value.status === "failed")
    return value.message || "The model could not be loaded, so there is nothing to train.";
  const trainer = value.trainer ?? { state: "idle" };
  const left = trainer.next_refit_in;
  if (trainer.state === "running") return `Training: ${progressText(trainer)}. You can go on chatting.`;
  if (trainer.state === "queued") return "A round is queued and starts shortly.";
  if (trainer.state === "paused")
    return "Paused. Ratings are still stored; no round starts until you resume.";
  if (trainer.state === "failed") return `The last round failed. ${trainer.message ?? ""}`.trim();
  if (left == null) return "Idle. Rounds start only when you ask for one.";
  if (left === 0) return "Idle. Enough new ratings are there; the next round is due.";
  return `Idle. The next round starts by itself after ${count(left, "more rating")}.`;
}

/** How far along STEPS the running round is, or the last one came, and whether it failed there. */
export function progressOf(trainer, round, versions) {
  const indexOf = (stage) =>
    Math.max(
      STEPS.findIndex(([id]) => id === stage),
      0,
    );
  if (trainer.state === "running") return { at: indexOf(trainer.stage), isFailed: false };
  if (!round || !isOver(round) || trainer.state === "queued") return { at: 0, isFailed: false };
  if (round.state !== "succeeded") return { at: indexOf(round.stage), isFailed: round.state === "failed" };
  if (!isPromoted(round, versions)) return { at: indexOf("gates"), isFailed: true };
  return {
    at: round.result_version === health().value?.live_version ? STEPS.length : indexOf("live"),
    isFailed: false,
  };
}

function isPromoted(round, versions) {
  const made = versions.find((version) => version.name === round.result_version);
  return Boolean(round.result_version) && !["rejected", "quarantined", "candidate"].includes(made?.state);
}

/** What became of a round, in a few words. */
export function outcome(round, versions) {
  const words = {
    queued: "waiting to start",
    running: "running",
    skipped: "skipped",
    failed: "failed",
    cancelled: "cancelled",
  };
  if (words[round.state]) return words[round.state];
  return isPromoted(round, versions) ? `made ${round.result_version}` : "not promoted";
}

export function noRoundText() {
  const left = health().value?.trainer?.next_refit_in;
  const when =
    left > 0
      ? ` The first starts by itself after ${count(left, "more rating")}, or now with Train now.`
      : "";
  return `No round yet. A round turns your ratings into a reward model and a better version of the model.${when}`;
}
