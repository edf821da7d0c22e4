// What the server is doing, asked every two seconds, and the chip that says it on every tab.

import { call } from "./api.js";
import { button, el, toast } from "./dom.js";
import { say } from "./words.js";

const PERIOD_MS = 2000;
const HIDDEN_PERIOD_MS = 10000;

const listeners = new Set();
let current = null;
let isLost = false;
let timer = null;

/** The last answer of the server (null before the first) and whether it is out of reach now. */
export function health() {
  return { value: current, isLost };
}

/** Call `listener({value, isLost})` now and at each change or poll. */
export function onHealth(listener) {
  listeners.add(listener);
  if (current || isLost) listener(health());
}

/** Ask now, and every two seconds from then on. */
export async function pollHealth() {
  clearTimeout(timer);
  const before = current?.live_version;
  try {
    current = await call("GET", "/api/health");
    isLost = false;
  } catch {
    isLost = true;
  }
  const after = current?.live_version;
  if (!isLost && before && after && before !== after)
    toast(say("{version} is live now. New replies come from it.", { version: after }));
  for (const listener of listeners) listener(health());
  clearTimeout(timer);
  timer = setTimeout(pollHealth, document.hidden ? HIDDEN_PERIOD_MS : PERIOD_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && timer !== null) pollHealth();
});

// --- words ------------------------------------------------------------------------------------

const STAGES = {
  loading: say("loading the model"),
  sft: "SFT",
  reward: say("reward model"),
  ppo: "PPO",
  gates: say("gates"),
};

export function stageName(stage) {
  return STAGES[stage] ?? stage ?? say("starting");
}

/** "less than a minute", "about 2 min", "about 1 h 20 min" */
export function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return say("less than a minute");
  if (minutes < 60) return say("about {n} min", { n: minutes });
  return say("about {h} h {n} min", { h: Math.floor(minutes / 60), n: minutes % 60 });
}

/** "PPO 7/24, about 2 min left" */
export function progressText(trainer) {
  const steps = trainer.steps ? ` ${trainer.step}/${trainer.steps}` : "";
  const stage = `${stageName(trainer.stage)}${steps}`;
  if (trainer.eta_seconds == null) return stage;
  return say("{stage}, {time} left", { stage, time: duration(trainer.eta_seconds) });
}

/** The sentence of the chip and its mood: calm, busy or bad. */
export function chipText({ value, isLost }) {
  if (isLost) return { mood: "bad", text: say("connection lost, retrying") };
  if (!value) return { mood: "busy", text: say("connecting") };
  if (value.status === "loading") {
    const percent = Math.round((value.loading?.fraction ?? 0) * 100);
    return { mood: "busy", text: say("loading the model {percent}%", { percent }) };
  }
  if (value.status === "failed") return { mood: "bad", text: say("the model could not be loaded") };
  const live = value.live_version
    ? say("{version} live", { version: value.live_version })
    : say("no version live");
  const trainer = value.trainer ?? { state: "idle" };
  if (trainer.state === "running")
    return { mood: "busy", text: `${live} - ${say("training: {progress}", { progress: progressText(trainer) })}` };
  if (trainer.state === "queued") return { mood: "busy", text: `${live} - ${say("training starts soon")}` };
  const refit = refitText(trainer.next_refit_in);
  const words = { idle: say("idle"), paused: say("training paused"), failed: say("training failed") };
  const state = words[trainer.state] ?? trainer.state;
  return {
    mood: trainer.state === "failed" ? "bad" : "calm",
    text: [live, refit, state].filter(Boolean).join(" - "),
  };
}

function refitText(left) {
  if (left == null) return "";
  return left > 0 ? say("refit in {n}", { n: left }) : say("refit due");
}

// --- header -----------------------------------------------------------------------------------

/** Fill the header: the name, and the chip, which leads to the Training tab. */
export function startHeader(host, openTraining) {
  const label = el("span", {});
  const chip = button(label, openTraining, {
    kind: "chip",
    testid: "chip",
    title: say("Open the Training tab"),
  });
  chip.prepend(el("span", { class: "dot", "aria-hidden": "true" }));
  const mark = el("span", { class: "mark", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  host.append(el("h1", { class: "brand" }, mark, el("span", {}, "chatrlhf")), chip);
  onHealth((state) => {
    const { mood, text } = chipText(state);
    chip.dataset.mood = mood;
    if (label.textContent !== text) label.textContent = text;
    chip.title = [state.value?.model, state.value?.loading?.stage, say("Open the Training tab")]
      .filter(Boolean)
      .join(" - ");
  });
}
