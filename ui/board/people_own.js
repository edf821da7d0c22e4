// The own account: where I am signed in, my password, and keys for my programs.

import { call, messageOf } from "./api.js";
import { button, el, toast } from "./dom.js";
import { roleName, signOut } from "./me.js";
import { labelled, named, panel, secretBox, smallForm, table } from "./people_parts.js";
import { momentCell } from "./times.js";
import { say } from "./words.js";

export class Sessions {
  constructor(who, hooks) {
    this.hooks = hooks;
    this.body = el("div", {});
    const all = button(say("Sign out everywhere"), () => signOut(true), {
      kind: "outline small",
      testid: "sign-out-everywhere",
    });
    const words = say("You are {name}, {role}. You are signed in here:", {
      name: who.name,
      role: roleName(who.role),
    });
    this.element = panel("sessions", say("You"), all, el("p", { "data-testid": "who" }, words), this.body);
  }

  async refresh() {
    const sessions = await call("GET", "/api/me/sessions");
    const rows = sessions.map((session) => ({
      attributes: { "data-testid": "session" },
      cells: [
        session.client || say("a program"),
        named(say("since"), momentCell(session.created_at)),
        named(say("last used"), momentCell(session.last_used_at)),
        session.is_this_one
          ? el("span", { class: "hint" }, say("this browser"))
          : button(say("Sign out"), () => this.#end(session.id), {
              kind: "outline small",
              testid: "end-session",
            }),
      ],
    }));
    const heads = [say("Browser"), say("Since"), say("Last used"), ""];
    this.body.replaceChildren(table("sessions", heads, rows));
  }

  async #end(id) {
    try {
      await call("DELETE", `/api/me/sessions/${id}`);
      await this.refresh();
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }
}

export class Password {
  constructor(who, hooks) {
    const old = labelled(say("Your password now"), {
      type: "password",
      required: true,
      autocomplete: "current-password",
      "data-testid": "old-password",
    });
    const fresh = labelled(say("A new one, {n} characters or more", { n: 10 }), {
      type: "password",
      required: true,
      minlength: 10,
      maxlength: 200,
      autocomplete: "new-password",
      "data-testid": "new-password",
    });
    const send = async () => {
      try {
        await call("PUT", "/api/me/password", { old: old.input.value, new: fresh.input.value });
        old.input.value = fresh.input.value = "";
        hooks.failed("");
        hooks.changed();
        toast(say("Your password is changed, and you are signed out of all other browsers."));
      } catch (error) {
        hooks.failed(messageOf(error));
      }
    };
    // For password managers, which otherwise do not know whose password this is.
    const name = { element: el("input", { hidden: true, autocomplete: "username", value: who.name }) };
    const form = smallForm([name, old, fresh], say("Change"), "change-password", send);
    this.element = panel("password", say("Password"), null, form);
  }
}

export class Keys {
  constructor(hooks) {
    this.hooks = hooks;
    this.body = el("div", {});
    this.made = el("div", {});
    const label = labelled(say("What is it for?"), {
      required: true,
      maxlength: 100,
      placeholder: say("such as the name of a program"),
      "data-testid": "key-name",
    });
    const send = async () => {
      try {
        const made = await call("POST", "/api/me/keys", { name: label.input.value });
        label.input.value = "";
        const words = say("Copy the key now. It is not shown again.");
        this.made.replaceChildren(secretBox("new-key", words, made.key));
        await this.refresh();
      } catch (error) {
        hooks.failed(messageOf(error));
      }
    };
    this.element = panel(
      "keys",
      say("API keys"),
      null,
      el("p", { class: "hint" }, say("A program with your key may do what you may, in your name.")),
      this.body,
      this.made,
      smallForm([label], say("Make a key"), "make-key", send),
    );
  }

  async refresh() {
    const keys = (await call("GET", "/api/me/keys")).filter((key) => !key.revoked_at);
    const rows = keys.map((key) => ({
      attributes: { "data-testid": "key" },
      cells: [
        el("span", { dir: "auto" }, key.name),
        el("code", {}, `${key.hint}...`),
        named(say("made"), momentCell(key.created_at)),
        named(say("last used"), momentCell(key.last_used_at)),
        button(say("Revoke"), () => this.#revoke(key), { kind: "outline small", testid: "revoke-key" }),
      ],
    }));
    const heads = [say("For"), say("Begins"), say("Made"), say("Last used"), ""];
    this.body.replaceChildren(rows.length ? table("keys", heads, rows) : "");
  }

  async #revoke(key) {
    try {
      await call("DELETE", `/api/me/keys/${key.id}`);
      this.made.replaceChildren();
      toast(say("The key for {name} is no longer good.", { name: key.name }));
      await this.refresh();
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }
}
