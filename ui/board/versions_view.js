// The versions of the model: where each came from, how it did, and which one is live.

import { call, messageOf } from "./api.js";
import { short } from "./charts.js";
import { button, count, el, toast } from "./dom.js";
import { pollHealth } from "./health.js";
import { withArrows } from "./round_view.js";

const STATES = {
  candidate: "being checked",
  ready: "ready",
  rejected: "not promoted",
  quarantined: "quarantined",
  retired: "retired",
};

/** The table of versions. `changed()` is called after a promotion, `failed(message)` on refusal. */
export function versionsTable(versions, live, hooks) {
  if (!versions.length)
    return el("p", { class: "hint" }, "No versions yet. The first one is made when the model has loaded.");
  const head = ["Version", "From", "State", "Made", "Notes", ""].map((text) =>
    el("th", { scope: "col" }, text),
  );
  const rows = versions.map((version) => row(version, live, hooks));
  return el("table", { class: "versions" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

function row(version, live, hooks) {
  const isLive = version.name === live;
  const state = isLive
    ? "live"
    : [STATES[version.state] ?? version.state, version.previous && "previous"].filter(Boolean).join(", ");
  const use = button("Use this version", () => promote(version.name, live, hooks), {
    kind: "outline small",
    testid: "use-version",
  });
  return el(
    "tr",
    { "data-testid": "version", "data-name": version.name, "data-state": isLive ? "live" : version.state },
    el("th", { scope: "row" }, version.name),
    el("td", {}, version.parent ?? "the base"),
    el("td", {}, el("span", { class: "state-tag", "data-state": isLive ? "live" : version.state }, state)),
    el("td", { class: "nowrap" }, day(version.created_at)),
    el("td", { class: "notes" }, notes(version)),
    el("td", { class: "actions" }, version.state === "ready" && !isLive ? use : null),
  );
}

async function promote(name, before, hooks) {
  try {
    await call("POST", `/api/versions/${name}/promote`);
    hooks.changed();
    pollHealth();
    toast(`${name} answers from now on.`, {
      action: before ? "Undo" : null,
      onaction: () => promote(before, null, hooks),
    });
  } catch (error) {
    hooks.failed(messageOf(error));
  }
}

function notes({ note, metrics, erased_rankings: erased }) {
  const accuracy = metrics?.reward?.accuracy;
  const sentences = [
    note && withArrows(note),
    metrics?.rankings && `Trained on ${count(metrics.rankings, "ranking")}.`,
    accuracy != null && `Held-out agreement ${short(accuracy)}.`,
    erased > 0 &&
      `${count(erased, "ranking")} it learned from ${erased === 1 ? "was" : "were"} erased since.`,
  ];
  return sentences.filter(Boolean).join(" ");
}

/** Newest first: v10 before v9. */
export function byNewest(a, b) {
  return Number(b.name.slice(1)) - Number(a.name.slice(1));
}

function day(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  return time.toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
}
