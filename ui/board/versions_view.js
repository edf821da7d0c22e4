// The versions of the model: where each came from, how it did, and which one is live.

import { call, messageOf } from "./api.js";
import { short } from "./charts.js";
import { button, el, toast } from "./dom.js";
import { pollHealth } from "./health.js";
import { lineage, lineageCell } from "./lineage.js";
import { withArrows } from "./round_view.js";
import { moment } from "./times.js";
import { say } from "./words.js";

const STATES = {
  candidate: say("being checked"),
  ready: say("ready"),
  rejected: say("not promoted"),
  quarantined: say("quarantined"),
  retired: say("retired"),
};

/** The table of versions, newest first, with the tree they form. `changed()` is called after a promotion, `failed(message)` on refusal. */
export function versionsTable(versions, live, hooks) {
  if (!versions.length)
    return el("p", { class: "hint" }, say("No versions yet. The first one is made when the model has loaded."));
  const head = [say("Version"), say("From version"), say("State"), say("Made"), say("Notes")].map((text) =>
    el("th", { scope: "col" }, text),
  );
  const tree = lineage(versions);
  const lanes = 1 + Math.max(...tree.flatMap(({ lane, passing }) => [lane, ...passing]));
  const rows = versions.map((version, index) => {
    const made = row(version, live, hooks);
    made.prepend(lineageCell(tree[index], lanes, version.name === live));
    return made;
  });
  return el(
    "table",
    { class: "versions" },
    el("thead", {}, el("tr", {}, el("td", {}), head, el("td", {}))),
    el("tbody", {}, rows),
  );
}

function row(version, live, hooks) {
  const isLive = version.name === live;
  const state = isLive
    ? say("live")
    : [STATES[version.state] ?? version.state, version.previous && say("previous")].filter(Boolean).join(", ");
  const use = button(say("Use this version"), () => promote(version.name, live, hooks), {
    kind: "outline small",
    testid: "use-version",
  });
  return el(
    "tr",
    { "data-testid": "version", "data-name": version.name, "data-state": isLive ? "live" : version.state },
    el("th", { scope: "row" }, version.name),
    el("td", { "data-head": say("from") }, version.parent ?? say("the base")),
    el("td", {}, el("span", { class: "state-tag", "data-state": isLive ? "live" : version.state }, state)),
    el("td", { class: "nowrap" }, moment(version.created_at)),
    el("td", { class: "notes" }, notes(version)),
    el(
      "td",
      { class: "actions" },
      version.state === "ready" && !isLive ? use : null,
      version.state === "retired" ? null : exported(version.name),
    ),
  );
}

/** The adapter for other programs. */
function exported(name) {
  return el(
    "a",
    {
      class: "button link small",
      href: `api/versions/${name}/export`,
      download: `${name}.zip`,
      "data-testid": "export-version",
      "aria-label": say("Download the adapter of {name}", { name }),
    },
    say("Download"),
  );
}

async function promote(name, before, hooks) {
  try {
    await call("POST", `/api/versions/${name}/promote`);
    hooks.changed();
    pollHealth();
    toast(say("{version} answers from now on.", { version: name }), {
      action: before ? say("Undo") : null,
      onaction: () => promote(before, null, hooks),
    });
  } catch (error) {
    hooks.failed(messageOf(error));
  }
}

function notes({ note, metrics, state, erased_rankings: erased }) {
  const accuracy = metrics?.reward?.accuracy;
  const sentences = [
    withArrows(metrics?.gates?.candidate && state !== "quarantined" ? roseText(metrics.gates) : (note ?? "")),
    metrics?.rankings && trainedText(metrics.rankings),
    accuracy != null && say("Held-out agreement {share}.", { share: short(accuracy) }),
    erased > 0 && erasedText(erased),
  ];
  return sentences.filter(Boolean).join(" ");
}

/** As the server's note of a version says it in English. */
function roseText({ parent, candidate, kl }) {
  const before = signed(parent.score);
  return say("Mean score {before} -> {after} at {kl} nats.", { before, after: signed(candidate.score), kl: kl.toFixed(1) });
}

function signed(value) {
  return `${value < 0 ? "" : "+"}${value.toFixed(2)}`;
}

function trainedText(n) {
  return n === 1 ? say("Trained on 1 ranking.") : say("Trained on {n} rankings.", { n });
}

function erasedText(n) {
  return n === 1
    ? say("1 ranking it learned from was erased since.")
    : say("{n} rankings it learned from were erased since.", { n });
}

/** Newest first: v10 before v9. */
export function byNewest(a, b) {
  return Number(b.name.slice(1)) - Number(a.name.slice(1));
}
