// For admins: links by which others make their own accounts.

import { call, messageOf } from "./api.js";
import { button, el } from "./dom.js";
import { ROLES, roleName } from "./me.js";
import { labelled, named, panel, secretBox, smallForm, table } from "./people_parts.js";
import { momentCell } from "./times.js";
import { say } from "./words.js";

const STATES = {
  open: say("open"),
  used: say("used"),
  withdrawn: say("withdrawn"),
  expired: say("expired"),
};

export class Invitations {
  constructor(hooks) {
    this.hooks = hooks;
    this.body = el("div", {});
    this.made = el("div", {});
    const options = Object.entries(ROLES).map(([role, { name, may }]) =>
      el("option", { value: role, selected: role === "rater" }, `${name} - ${may}`),
    );
    const role = labelled(say("Role"), { "data-testid": "invite-role" }, "select", options);
    const note = labelled(say("For whom? (only admins see it)"), {
      maxlength: 200,
      "data-testid": "invite-note",
    });
    const send = async () => {
      const body = { role: role.input.value, note: note.input.value };
      try {
        const made = await call("POST", "/api/invitations", body);
        note.input.value = "";
        const link = new URL(made.path.slice(1), new URL(".", document.baseURI)).href;
        const words = say("Send this link to one person. It works once, and is not shown again.");
        this.made.replaceChildren(secretBox("invite-link", words, link));
        hooks.changed();
      } catch (error) {
        hooks.failed(messageOf(error));
      }
    };
    const form = smallForm([role, note], say("Make a link"), "invite", send);
    this.element = panel("invitations", say("Invite somebody"), null, form, this.made, this.body);
  }

  async refresh() {
    const found = (await call("GET", "/api/invitations")).slice(0, 20);
    const heads = [say("For"), say("Role"), say("State"), say("Until"), ""];
    const rows = found.map((invitation) => ({
      attributes: { "data-testid": "invitation", "data-state": invitation.state },
      cells: [
        el("span", { dir: "auto" }, invitation.note || say("somebody")),
        roleName(invitation.role),
        stateText(invitation),
        named(say("until"), momentCell(invitation.expires_at)),
        invitation.state === "open"
          ? button(say("Withdraw"), () => this.#withdraw(invitation.id), {
              kind: "outline small",
              testid: "withdraw",
            })
          : "",
      ],
    }));
    this.body.replaceChildren(rows.length ? table("invitations", heads, rows) : "");
  }

  async #withdraw(id) {
    try {
      await call("DELETE", `/api/invitations/${id}`);
      this.made.replaceChildren();
      this.hooks.changed();
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }
}

function stateText({ state, used_by: name }) {
  return state === "used" && name ? say("used by {name}", { name }) : STATES[state];
}
