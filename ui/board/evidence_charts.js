// The figures of the screen "Is it better?", drawn from GET /api/evidence.

import { el } from "./dom.js";
import { bandChart, intervalRows, percent, range } from "./interval_chart.js";
import { say } from "./words.js";

const HALF = { low: 0, high: 1, mark: 0.5, format: percent };

/** Win rates by pair of versions, each with its interval, and below it that at equal length. */
export function pairsView(pairs, empty) {
  if (!pairs.length) return el("p", { class: "hint" }, empty);
  return intervalRows(
    pairs.map((pair) => {
      const { estimate: value, low, high } = pair.win_rate;
      const even = pair.at_equal_length;
      return {
        name: `${pair.newer}-${pair.older}`,
        label: say("{newer} over {older}", pair),
        value,
        low,
        high,
        text: pairText(pair),
        extra: even && { value: even.estimate, low: even.low, high: even.high },
      };
    }),
    HALF,
  );
}

function pairText({ wins, ties, votes, win_rate: rate }) {
  const share = `${percent(rate.estimate)} (${range(rate.low, rate.high)})`;
  return ties > 0
    ? say("{wins} of {votes}, {ties} tied: {share}", { wins, votes, ties, share })
    : say("{wins} of {votes}: {share}", { wins, votes, share });
}

/** What the hollow marks mean, where there are some. */
export function equalLengthNote(pairs) {
  const shown = pairs.filter((pair) => pair.at_equal_length);
  if (!shown.length) return "";
  return el(
    "p",
    { class: "hint interval-note" },
    el("i", { class: "interval-dot is-extra", "aria-hidden": "true" }),
    say("The hollow mark: if the replies of both had been equally long."),
  );
}

/** Bradley-Terry strengths as the chance to be preferred to the oldest version. */
export function strengthsView({ anchor, versions }) {
  if (versions.length < 2)
    return el("p", { class: "hint" }, say("Strengths appear once two versions have met in a duel."));
  const rows = versions
    .filter(({ version }) => version !== anchor)
    .sort((a, b) => b.estimate - a.estimate)
    .map(({ version, estimate, low, high }) => {
      // Where all votes went one way, resampling them says nothing of how sure that is.
      const isPoint = low != null && high != null && high - low < 1e-6;
      const chance = { value: odds(estimate), low: isPoint ? null : bounded(low), high: isPoint ? null : bounded(high) };
      const share = `${percent(chance.value)} (${range(chance.low, chance.high) || say("no interval yet")})`;
      return { name: version, label: say("{version} over {anchor}", { version, anchor }), ...chance, text: share };
    });
  return intervalRows(rows, HALF);
}

function odds(logit) {
  return 1 / (1 + Math.exp(-logit));
}

function bounded(logit) {
  return logit == null ? null : odds(logit);
}

/** Accuracy of the reward models on rankings that were new to them: as it came, and by version. */
export function foretoldView({ rankings, pairs, right, accuracy, by_version: byVersion, points }) {
  if (!rankings)
    return el(
      "p",
      { class: "hint" },
      say("Nothing was foretold yet. From the second round on, each new ranking is judged first by the reward model that is live, and learned from afterwards."),
    );
  const share = `${percent(accuracy.estimate)}, ${range(accuracy.low, accuracy.high)}`;
  const told =
    accuracy.low > 0.5
      ? say("It knew better than chance what you would prefer.")
      : accuracy.high < 0.5
        ? say("It foretold the opposite of what you preferred.")
        : say("Whether it is better than chance is not sure yet.");
  return el(
    "div",
    { "data-testid": "foretold" },
    el(
      "p",
      {},
      say("{right} of {pairs} pairs in {rankings} rankings were right ({share}).", {
        right,
        pairs,
        rankings,
        share,
      }),
      " ",
      told,
    ),
    points.length > 1 &&
      bandChart(
        points.map(({ so_far: one }) => ({ value: one.estimate, low: one.low, high: one.high })),
        {
          mark: 0.5,
          label: say("Accuracy so far, after each of {rankings} rankings; the last is {share}", { rankings, share }),
          first: say("first ranking"),
          last: say("ranking {rankings}", { rankings }),
        },
      ),
    byVersion.length > 1 && el("h3", {}, say("By reward model")),
    byVersion.length > 1 &&
      intervalRows(
        byVersion.map(({ version, rankings: count, accuracy: one }) => ({
          name: version,
          label: say("{version}, {count} rankings", { version, count }),
          value: one.estimate,
          low: one.low,
          high: one.high,
          text: `${percent(one.estimate)} (${range(one.low, one.high)})`,
        })),
        HALF,
      ),
  );
}
