// For admins: who is here, what they may do, and how much is theirs.

import { call, messageOf } from "./api.js";
import { button, el, overlayLayer, toast } from "./dom.js";
import { ROLES, roleName } from "./me.js";
import { named, panel, table } from "./people_parts.js";
import { momentCell } from "./times.js";
import { say } from "./words.js";

export class Team {
  constructor(who, hooks) {
    this.who = who;
    this.hooks = hooks;
    this.body = el("div", {});
    const words = Object.values(ROLES).map(({ name, may }) => [el("dt", {}, name), el("dd", {}, may)]);
    const roles = el(
      "details",
      { class: "roles" },
      el("summary", {}, say("What each role may do, besides what the ones before it may")),
      el("dl", {}, words),
    );
    this.element = panel("team", say("People"), null, this.body, roles);
  }

  async refresh() {
    const people = await call("GET", "/api/people");
    const key = JSON.stringify(people);
    if (key === this.drawn) return; // a list that is open stays open
    this.drawn = key;
    const heads = [say("Name"), say("Role"), say("Chats"), say("Ratings"), say("Last here"), ""];
    this.body.replaceChildren(
      table(
        "team",
        heads,
        people.map((person) => this.#row(person)),
      ),
    );
  }

  #row(person) {
    const isMe = person.id === this.who.id;
    const role = person.has_account ? this.#picker(person) : el("span", { class: "hint" }, say("imported rater"));
    const remove = button(say("Remove"), () => this.#ask(person), {
      kind: "outline small",
      testid: "remove-person",
      "aria-label": say("Remove {name}", { name: person.name }),
    });
    return {
      attributes: { "data-testid": "person", "data-name": person.name },
      cells: [
        [el("span", { dir: "auto" }, person.name), isMe && el("span", { class: "hint" }, ` (${say("you")})`)],
        role,
        named(say("chats"), String(person.conversations)),
        named(say("ratings"), String(person.rankings)),
        named(say("last here"), momentCell(person.last_used_at)),
        isMe ? "" : remove,
      ],
    };
  }

  #picker(person) {
    const options = Object.keys(ROLES).map((role) =>
      el("option", { value: role, selected: role === person.role }, roleName(role)),
    );
    return el(
      "select",
      {
        class: "field",
        "data-testid": "person-role",
        "aria-label": say("Role of {name}", { name: person.name }),
        onchange: (event) => this.#setRole(person, event.target.value, person.role),
      },
      options,
    );
  }

  async #setRole(person, role, before) {
    try {
      await call("PATCH", `/api/people/${person.id}`, { role });
      this.hooks.changed();
      toast(say("{name} is {role} now.", { name: person.name, role: roleName(role) }), {
        action: before ? say("Undo") : null,
        onaction: () => this.#setRole(person, before, null),
      });
    } catch (error) {
      this.hooks.failed(messageOf(error));
      this.drawn = null; // the list shows the role that was refused
      this.hooks.changed();
    }
  }

  /** Erasing cannot be undone, so it says what goes and is asked for twice. */
  #ask(person) {
    const values = { name: person.name, chats: person.conversations, ratings: person.rankings };
    const dialog = el(
      "dialog",
      { class: "ask", "data-testid": "ask-remove", "aria-labelledby": "ask-title" },
      el("h2", { id: "ask-title" }, say("Remove {name}?", values)),
      el("p", {}, say("Chats that are erased: {chats}. Ratings: {ratings}. Sessions and keys end.", values)),
      el("p", {}, say("Versions trained on them are marked. This cannot be undone.")),
      el(
        "div",
        { class: "ask-buttons" },
        button(say("Keep"), () => dialog.close(), { kind: "outline", testid: "keep-person" }),
        button(say("Remove {name}", values), () => this.#remove(person, dialog), {
          kind: "danger",
          testid: "really-remove",
        }),
      ),
    );
    dialog.addEventListener("close", () => dialog.remove());
    overlayLayer().append(dialog);
    dialog.showModal();
  }

  async #remove(person, dialog) {
    try {
      await call("DELETE", `/api/people/${person.id}`);
      toast(say("{name} is gone, with all that was theirs.", { name: person.name }));
      this.hooks.changed();
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
    dialog.close();
  }
}
