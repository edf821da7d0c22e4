// For admins: who changed what, newest first, a page at a time.

import { call, messageOf } from "./api.js";
import { button, el, inTurn, onlyLast } from "./dom.js";
import { panel, table } from "./people_parts.js";
import { momentCell } from "./times.js";
import { say } from "./words.js";

const PAGE = 25;

const ACTIONS = {
  accept_invitation: say("accepted an invitation"),
  add_person: say("added a person"),
  add_prompts: say("added prompts"),
  cancel_round: say("ended a round"),
  delete_conversation: say("deleted a chat"),
  export: say("exported data"),
  first_account: say("made the first account"),
  import: say("imported data"),
  invite: say("invited somebody"),
  make_key: say("made an API key"),
  password: say("changed a password"),
  pause_trainer: say("paused training"),
  promote: say("made a version live"),
  quarantine: say("took a damaged version out of use"),
  remove_person: say("removed a person"),
  request_round: say("asked for a round"),
  resume_trainer: say("resumed training"),
  revoke_key: say("revoked an API key"),
  role: say("changed a role"),
  rollback: say("rolled back"),
  sign_in: say("signed in"),
  sign_out: say("signed out"),
  sign_out_everywhere: say("signed out everywhere"),
  undo_ranking: say("took a ranking back"),
  withdraw_invitation: say("withdrew an invitation"),
};

export class AuditLog {
  constructor(hooks) {
    this.hooks = hooks;
    this.refresh = onlyLast((isLast) => this.#load(isLast));
    this.pages = [null]; // the ids before which each page up to the shown one begins
    this.body = el("div", {});
    this.state = el("p", { class: "hint", role: "status", "data-testid": "audit-state" });
    const turn = inTurn((step) => this.#turn(step));
    this.newer = button(say("Newer"), () => turn(-1), { kind: "outline small", testid: "audit-newer" });
    this.older = button(say("Older"), () => turn(1), { kind: "outline small", testid: "audit-older" });
    const verify = button(say("Check the chain"), () => this.#verify(), {
      kind: "outline small",
      testid: "audit-verify",
    });
    this.element = panel(
      "audit",
      say("What was changed, and by whom"),
      verify,
      this.state,
      this.body,
      el("div", { class: "pager" }, this.newer, this.older),
    );
  }

  async #load(isLast) {
    const before = this.pages.at(-1);
    const query = before === null ? "" : `&before_id=${before}`;
    const [found, people] = await Promise.all([
      call("GET", `/api/audit?limit=${PAGE + 1}${query}`),
      call("GET", "/api/people"),
    ]);
    if (!isLast()) return; // another page has been asked for since
    const entries = found.slice(0, PAGE);
    const names = new Map(people.map((person) => [person.id, person.name]));
    this.next = entries.at(-1)?.id ?? null;
    this.newer.disabled = this.pages.length === 1;
    this.older.disabled = found.length <= PAGE;
    const rows = entries.map((entry) => ({
      attributes: { "data-testid": "audit-entry", "data-action": entry.action },
      cells: [
        momentCell(entry.created_at),
        el("span", { dir: "auto" }, whoText(entry, names)),
        ACTIONS[entry.action] ?? entry.action,
        el("span", { class: "detail", dir: "auto" }, detailText(entry.detail)),
      ],
    }));
    this.body.replaceChildren(table("audit", [say("When"), say("Who"), say("What"), say("Detail")], rows));
  }

  async #turn(step) {
    if ((step > 0 ? this.older : this.newer).disabled) return;
    const before = this.pages;
    this.pages = step > 0 ? [...before, this.next] : before.slice(0, -1);
    try {
      await this.refresh();
    } catch (error) {
      this.pages = before;
      this.hooks.failed(messageOf(error));
    }
  }

  async #verify() {
    try {
      const { intact, broken_id: id, sha256 } = await call("GET", "/api/audit/verify");
      this.state.classList.toggle("is-broken", !intact);
      this.state.textContent = intact
        ? say("The log is whole. Its newest hash: {sha256}", { sha256 })
        : say("Entry {id} was changed or removed, or one before it was.", { id });
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }
}

function whoText({ person_id: id }, names) {
  if (id === null) return say("the program or the command line");
  return names.get(id) ?? say("person {id}, removed", { id });
}

function detailText(detail) {
  return Object.entries(detail)
    .filter(([, value]) => value !== "" && value !== null && typeof value !== "object")
    .map(([name, value]) => `${name}: ${value}`)
    .join(", ");
}
