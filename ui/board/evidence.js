// The screen "Is it better?": what blind rankings say of the versions, and what is not known yet.

import { call, messageOf } from "./api.js";
import { button, el, isShown, toast } from "./dom.js";
import { equalLengthNote, foretoldView, pairsView, strengthsView } from "./evidence_charts.js";
import { health, onHealth, pollHealth } from "./health.js";
import { me } from "./me.js";
import { ThenAndNow } from "./then_and_now.js";
import { say } from "./words.js";

const PERIOD_MS = 6000;

export class Evidence {
  /** `openChat(id)` shows a conversation in the Chat tab. */
  constructor(host, openChat) {
    this.scope = null; // null: what the server takes for this person
    this.asked = null; // what is being asked for
    this.refreshedAt = 0;
    this.drawn = "";
    this.sentence = el("p", { class: "verdict", role: "status", "data-testid": "verdict" });
    this.counts = el("p", { class: "hint", "data-testid": "duel-counts" });
    this.rollback = button("", () => this.#rollBack(), { kind: "primary", testid: "evidence-rollback" });
    this.rollback.hidden = true;
    this.scopePicker = el(
      "select",
      {
        class: "field",
        "aria-label": say("Whose rankings"),
        "data-testid": "scope",
        hidden: true,
        onchange: () => this.#choose(this.scopePicker.value),
      },
      el("option", { value: "team" }, say("Rankings of everybody")),
      el("option", { value: "own" }, say("My rankings")),
    );
    this.error = el("div", { class: "error-banner", role: "alert", "data-testid": "evidence-error", hidden: true });
    this.pairs = el("div", {});
    this.strengths = el("div", {});
    this.foretold = el("div", {});
    this.then = new ThenAndNow({
      openChat,
      failed: (text) => this.#showError(text),
    });
    host.append(this.#layOut());
    onHealth((state) => this.#onHealth(state));
    this.refresh();
  }

  #layOut() {
    const panel = (title, hint, ...content) =>
      el(
        "section",
        { class: "panel" },
        el("h2", {}, title),
        hint && el("p", { class: "hint panel-hint" }, hint),
        ...content,
      );
    return (this.element = el(
      "div",
      { class: "training evidence", tabindex: "0", "data-testid": "evidence" },
      el(
        "div",
        { class: "training-inner" },
        this.error,
        el(
          "section",
          { class: "panel" },
          el("div", { class: "panel-head" }, el("h2", {}, say("Is it better?")), this.scopePicker),
          this.sentence,
          this.rollback,
          this.counts,
        ),
        panel(
          say("Blind duels"),
          say("How often the newer version was preferred where nobody knew who wrote what. A tie counts half; lines are 95% intervals."),
          this.pairs,
        ),
        panel(
          say("Strength of the versions"),
          say("All duels together: how likely each version is to be preferred to the oldest one (Bradley-Terry; intervals by resampling prompts)."),
          this.strengths,
        ),
        panel(
          say("The reward model, before it learned"),
          say("How many pairs of a new ranking it had right before it was trained on it. 50% is chance."),
          this.foretold,
        ),
        panel(
          say("Then and now"),
          say("Your worst-rated prompts, put to the live version again. Ranked blind they are counted apart, because they were chosen for being bad."),
          this.then.element,
        ),
      ),
    ));
  }

  #onHealth({ isLost }) {
    if (!isShown(this.element) || isLost || this.asked) return;
    const isNew = health().value?.live_version !== this.live;
    if (isNew || Date.now() - this.refreshedAt > PERIOD_MS) this.refresh();
  }

  async refresh() {
    const asked = {};
    this.asked = asked;
    try {
      const scope = this.scope ? `?scope=${this.scope}` : "";
      const [found, then, who] = await Promise.all([
        call("GET", `/api/evidence${scope}`),
        call("GET", "/api/evidence/then-and-now"),
        me(),
      ]);
      if (asked !== this.asked) return; // another scope has been asked for since
      this.isTeam = found.scope === "team" && who.has_accounts;
      this.refreshedAt = Date.now();
      this.live = found.live_version;
      const key = JSON.stringify([found, then]);
      if (key !== this.drawn) this.#draw(found, then);
      this.drawn = key;
    } catch (error) {
      if (!error.isConnectionLost) this.sentence.textContent = messageOf(error);
    } finally {
      if (asked === this.asked) this.asked = null;
    }
  }

  #draw(found, then) {
    this.sentence.textContent = found.sentences.map(({ text, values }) => say(text, values)).join(" ");
    this.rollbackTo = found.rollback_to;
    this.rollback.hidden = !found.rollback_to;
    this.rollback.textContent = say("Roll back to {version}", { version: found.rollback_to });
    this.counts.textContent = countsText(found.duels);
    if (this.isTeam) this.scopePicker.hidden = false;
    this.scopePicker.value = found.scope;
    this.pairs.replaceChildren(
      pairsView(found.pairs, say("No duel was ranked yet. They come by themselves while you chat.")),
      equalLengthNote(found.pairs),
    );
    if (found.replays.length)
      this.pairs.append(el("h3", {}, say("Replayed prompts, counted apart")), pairsView(found.replays, ""));
    this.strengths.replaceChildren(strengthsView(found.strengths));
    this.foretold.replaceChildren(foretoldView(found.foretold));
    this.then.update(then);
  }

  #choose(scope) {
    this.scope = scope;
    this.refresh();
  }

  async #rollBack() {
    const before = health().value?.live_version;
    try {
      const answer = await call("POST", `/api/versions/${this.rollbackTo}/promote`);
      const undo = () => call("POST", `/api/versions/${before}/promote`).then(pollHealth);
      toast(say("{version} answers from now on.", { version: answer.live_version }), {
        action: before ? say("Undo") : null,
        onaction: undo,
      });
      this.#showError("");
      await pollHealth();
      await this.refresh();
    } catch (error) {
      this.#showError(messageOf(error));
    }
  }

  #showError(text) {
    this.error.textContent = text;
    this.error.hidden = text === "";
  }
}

function countsText({ turns, ranked, blind }) {
  const told = say("Duels so far: {turns} shown, {ranked} ranked.", { turns, ranked });
  const lost = ranked - blind;
  const peeked = lost > 0 ? say("{lost} rankings are not counted, as they were not blind.", { lost }) : "";
  return [turns > 0 && told, peeked].filter(Boolean).join(" ");
}

/** Fill the tab. */
export function startEvidence(host, openChat) {
  return new Evidence(host, openChat);
}
