// The People screen: the own account, and for admins the team, invitations and the audit log.

import { messageOf } from "./api.js";
import { button, el, isShown } from "./dom.js";
import { me } from "./me.js";
import { AuditLog } from "./people_audit.js";
import { FirstAccount } from "./people_first.js";
import { Invitations } from "./people_invitations.js";
import { Keys, Password, Sessions } from "./people_own.js";
import { Team } from "./people_team.js";
import { say } from "./words.js";

const PERIOD_MS = 15000;

export class People {
  constructor(host) {
    this.errorText = el("span", {});
    this.error = el(
      "div",
      { class: "error-banner", role: "alert", "data-testid": "people-error", hidden: true },
      this.errorText,
      button(say("Close"), () => this.failed(""), { kind: "link" }),
    );
    this.inner = el("div", { class: "people-inner" }, this.error);
    this.element = el("div", { class: "people", "data-testid": "people" }, this.inner);
    this.sections = [];
    host.append(this.element);
    this.#start();
  }

  async #start() {
    let who;
    try {
      who = await me();
    } catch (error) {
      this.failed(messageOf(error));
      setTimeout(() => this.#start(), PERIOD_MS);
      return;
    }
    this.failed("");
    this.sections = sectionsFor(who, {
      failed: (message) => this.failed(message),
      changed: () => this.refresh(),
    });
    await this.refresh(); // all at once: a section that grows would move a button from under the pointer
    this.inner.append(...this.sections.map((section) => section.element));
    setInterval(() => this.#isLookedAt() && this.refresh(), PERIOD_MS);
  }

  /** Shown, and not pressed just now: what is replaced between press and release gets no click. */
  #isLookedAt() {
    return isShown(this.element) && !document.hidden && !this.element.matches(":active");
  }

  async refresh() {
    try {
      await Promise.all(this.sections.map((section) => section.refresh?.()));
    } catch (error) {
      if (!error.isConnectionLost) this.failed(messageOf(error));
    }
  }

  failed(message) {
    this.errorText.textContent = message;
    this.error.hidden = message === "";
    if (message) this.error.scrollIntoView({ block: "nearest" });
  }
}

function sectionsFor(who, hooks) {
  if (!who.has_accounts) return [new FirstAccount(hooks)];
  const team = who.role === "admin" ? [new Team(who, hooks), new Invitations(hooks)] : [];
  const log = who.role === "admin" ? [new AuditLog(hooks)] : [];
  return [...team, new Sessions(who, hooks), new Password(who, hooks), new Keys(hooks), ...log];
}

/** Fill the People tab. */
export function startPeople(host) {
  return new People(host);
}
