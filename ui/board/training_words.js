// What the training screen says: the trainer's state, how far a round came, what became of it.

import { health, progressText } from "./health.js";
import { isOver } from "./round_view.js";
import { say } from "./words.js";

/** The steps of a round: stage, and its name. */
export const STEPS = [
  ["ratings", say("New ratings")],
  ["sft", say("Imitation")],
  ["reward", say("Reward model")],
  ["ppo", "PPO"],
  ["gates", say("Gates")],
  ["live", say("Live")],
];

/** The trainer's state in a sentence or two. */
export function stateText({ value, isLost }) {
  if (isLost) return say("Connection lost, retrying. What is shown may be old.");
  if (!value) return say("Asking the server.");
  if (value.status === "loading") return say("The model is loading. Training can begin when it is ready.");
  if (value.status === "failed")
    return value.message || say("The model could not be loaded, so there is nothing to train.");
  const trainer = value.trainer ?? { state: "idle" };
  const left = trainer.next_refit_in;
  if (trainer.state === "running") return say("Training: {progress}. You can go on chatting.", { progress: progressText(trainer) });
  if (trainer.state === "queued") return say("A round is queued and starts shortly.");
  if (trainer.state === "paused")
    return say("Paused. Ratings are still stored; no round starts until you resume.");
  if (trainer.state === "failed") return say("The last round failed. {reason}", { reason: trainer.message ?? "" }).trim();
  if (left == null) return say("Idle. Rounds start only when you ask for one.");
  if (left === 0) return say("Idle. Enough new ratings are there; the next round is due.");
  return left === 1
    ? say("Idle. The next round starts by itself after 1 more rating.")
    : say("Idle. The next round starts by itself after {n} more ratings.", { n: left });
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
    queued: say("waiting to start"),
    running: say("running"),
    skipped: say("skipped"),
    failed: say("failed"),
    cancelled: say("cancelled"),
  };
  if (words[round.state]) return words[round.state];
  return isPromoted(round, versions) ? say("made {version}", { version: round.result_version }) : say("not promoted");
}

export function noRoundText() {
  const left = health().value?.trainer?.next_refit_in;
  const none = say(
    "No round yet. A round turns your ratings into a reward model and a better version of the model.",
  );
  if (!(left > 0)) return none;
  const when =
    left === 1
      ? say("The first starts by itself after 1 more rating, or now with Train now.")
      : say("The first starts by itself after {n} more ratings, or now with Train now.", { n: left });
  return `${none} ${when}`;
}
