// Local use without accounts: what that means, and how to let others in.

import { call, messageOf } from "./api.js";
import { el } from "./dom.js";
import { labelled, panel, smallForm } from "./people_parts.js";
import { say } from "./words.js";

export class FirstAccount {
  constructor(hooks) {
    const name = labelled(say("Your name"), {
      required: true,
      maxlength: 100,
      autocomplete: "username",
      "data-testid": "first-name",
    });
    const password = labelled(say("A password, {n} characters or more", { n: 10 }), {
      type: "password",
      required: true,
      minlength: 10,
      maxlength: 200,
      autocomplete: "new-password",
      "data-testid": "first-password",
    });
    const send = async () => {
      try {
        await call("POST", "/api/people", {
          name: name.input.value,
          password: password.input.value,
          role: "admin",
        });
        location.reload();
      } catch (error) {
        hooks.failed(messageOf(error));
      }
    };
    const steps = [
      say("Make your own account here. Your chats and ratings stay yours."),
      say("From then on everybody signs in, on this computer too."),
      say("Invite others with a link. Each sees their own chats only; all ratings teach the same model."),
      say("Start the server at an address that they reach:"),
    ];
    this.element = panel(
      "first-account",
      say("Only you"),
      null,
      el(
        "p",
        {},
        say("You use this alone, on this computer, so nobody needs to sign in. To rate with others:"),
      ),
      el(
        "ol",
        { class: "numbered" },
        steps.map((text, index) =>
          el("li", {}, text, index === 3 && el("code", { class: "command" }, "chatrlhf serve --host 0.0.0.0")),
        ),
      ),
      smallForm([name, password], say("Make my account"), "first-submit", send),
    );
  }
}
