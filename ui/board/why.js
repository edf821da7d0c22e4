// Why this score: what each term of the reward adds, how far the ensemble is apart, and what the
// critic expected after each word.

import { call, messageOf } from "./api.js";
import { short, termName } from "./charts.js";
import { appendText, button, el } from "./dom.js";
import { dialogHead, openDialog } from "./dialogs.js";
import { say } from "./words.js";

/** A button that opens the explanation; `body` is that of POST /api/reward/explain. */
export function whyButton(body) {
  return button(say("Why this score?"), () => openWhy(body), { kind: "link", testid: "why" });
}

/** Open the explanation of a reply in a dialog. */
export async function openWhy(body) {
  const content = el("div", { class: "why", "data-testid": "why-dialog" });
  const dialog = openDialog(
    { class: "why-panel", "aria-label": say("Why this score?") },
    dialogHead(say("Why this score?"), () => dialog.close()),
    content,
  );
  content.append(el("p", { class: "hint" }, say("Asking the reward model.")));
  try {
    const answer = await call("POST", "/api/reward/explain", body);
    content.replaceChildren(...answer.replies.map((reply) => explanation(reply, answer)));
  } catch (error) {
    content.replaceChildren(el("p", { role: "alert" }, messageOf(error)));
  }
}

function explanation(reply, { version, source, left_out: leftOut }) {
  const terms = Object.entries(reply.terms);
  const largest = Math.max(...terms.map(([, value]) => Math.abs(value)), 1e-9);
  return el(
    "div",
    {},
    el(
      "p",
      { class: "why-score", "data-testid": "why-score" },
      say("{version} scores this reply {score}. 0 is an average reply, 1 one deviation better.", {
        version,
        score: signed(reply.score),
      }),
    ),
    el("h3", {}, say("What adds to it")),
    el(
      "ul",
      { class: "why-terms", "data-testid": "why-terms" },
      terms.map(([name, value]) => termRow(name, value, largest)),
    ),
    leftOut.length > 0 &&
      el("p", { class: "hint" }, say("Left out, because it cannot be computed here: {names}.", {
        names: leftOut.map(termName).join(", "),
      })),
    el(
      "p",
      { class: "hint" },
      say("The members of the ensemble are {spread} apart: the more, the less this is known.", {
        spread: short(reply.spread),
      }),
    ),
    el("h3", {}, say("What was expected, word by word")),
    heatMap(reply),
    el(
      "p",
      { class: "hint" },
      source === "critic"
        ? say("By the critic that learned beside {version}: the score it expected once a word stood.", { version })
        : say("{version} has no critic, so its reward model reads each beginning as if it ended there.", {
            version,
          }),
    ),
  );
}

function termRow(name, value, largest) {
  const bar = el("i", { class: value < 0 ? "why-bar is-negative" : "why-bar" });
  bar.style.width = `${(Math.abs(value) / largest) * 50}%`;
  return el(
    "li",
    {},
    el("span", {}, name === "spread" ? say("uncertainty") : termName(name)),
    el("span", { class: "why-track", "aria-hidden": "true" }, bar),
    el("span", { class: "numeric" }, signed(value)),
  );
}

/** The reply, each token on a colour by its value: above what was expected at first, or below. */
function heatMap({ before, tokens }) {
  if (!tokens.length) return el("p", { class: "hint" }, say("The reply is empty."));
  const far = Math.max(...tokens.map(({ value }) => Math.abs(value - before)), 1e-9);
  const map = el("div", { class: "heat", dir: "auto", "data-testid": "heat" });
  let last = before;
  for (const { text, value } of tokens) {
    const share = (value - before) / far;
    const word = el("span", {
      class: share < 0 ? "heat-token is-low" : "heat-token",
      title: say("{value} expected here ({change})", { value: short(value), change: signed(value - last) }),
    });
    word.style.setProperty("--heat", `${Math.round(Math.abs(share) * 60)}%`);
    appendText(word, text);
    map.append(word);
    last = value;
  }
  return el(
    "div",
    {},
    map,
    el(
      "div",
      { class: "heat-legend" },
      el("span", {}, say("before the first word {value}", { value: short(before) })),
      el("span", { class: "heat-scale", "aria-hidden": "true" }),
      el("span", {}, say("at the end {value}", { value: short(last) })),
    ),
  );
}

function signed(value) {
  return `${value < 0 ? "\u2212" : "+"}${short(Math.abs(value))}`;
}
