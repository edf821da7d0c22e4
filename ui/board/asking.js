// Asking for replies: sending a message, asking again, and following what is written.

import { messageOf } from "./api.js";
import { health } from "./health.js";
import { followTurn, startTurn } from "./stream.js";
import { isStreaming, topReply } from "./turns.js";

export class Asking {
  constructor(chat) {
    this.chat = chat;
    this.following = null; // AbortController of the stream
    this.heldText = null; // waits for the model to be loaded
    this.lostText = null; // was sent when the connection broke: taken or not?
  }

  /** Send a message; true when the server took it. */
  async send(text) {
    const { leaf, turns, composer, current } = this.chat;
    if (leaf && isStreaming(leaf)) {
      composer.showNote(
        "The replies are still being written. Wait for them, or press Stop; your message stays here.",
      );
      return false;
    }
    if (health().value?.status === "loading") {
      this.heldText = text;
      composer.showNote("The model is still loading. Your message is sent as soon as it is ready.");
      return false;
    }
    // The order decides where the chat goes on, so it must be stored first.
    if (current?.board.saving === "yes") await current.board.chain;
    const body = { text };
    if (leaf !== (turns.at(-1) ?? null)) body.parent_reply_id = continuation(leaf).id;
    return this.#ask(body);
  }

  /** Ask the shown message again: a sibling of the current turn. */
  async regenerate() {
    const { leaf } = this.chat;
    if (!leaf || isStreaming(leaf)) return;
    await this.#ask({ text: leaf.text, parent_reply_id: leaf.parentReplyId });
  }

  /** Send the message that waited for the model, once it is loaded. */
  sendHeld(state) {
    if (this.heldText === null || state.isLost || state.value?.status === "loading") return;
    this.heldText = null;
    this.chat.composer.showNote("");
    if (state.value?.status === "ok") this.chat.composer.submit();
  }

  /** A message that was taken although its answer got lost must not be sent again. */
  forgetTaken(turns) {
    if (this.lostText !== null && turns.at(-1)?.text === this.lostText) this.chat.composer.setText("");
    this.lostText = null;
  }

  /** Follow a turn that is still being written, as after a reload. */
  async follow(turn) {
    const controller = this.#begin();
    await followTurn(
      turn.id,
      this.#listener(controller, () => {}),
      controller.signal,
    );
    this.#end(controller);
  }

  /** Stop listening; the server goes on writing. */
  leave() {
    this.following?.abort();
    this.following = null;
    this.heldText = null;
  }

  async #ask(body) {
    const { chat } = this;
    chat.composer.showError("");
    try {
      const conversation = await chat.ensureConversation();
      return await new Promise((resolve, reject) => {
        const controller = this.#begin();
        const on = this.#listener(controller, (json) => {
          chat.began(json);
          resolve(true);
        });
        controller.signal.addEventListener("abort", () => resolve(false));
        startTurn(conversation.id, body, on, controller.signal).then(() => this.#end(controller), reject);
      });
    } catch (error) {
      this.following = null;
      if (error.isConnectionLost) this.lostText = body.text;
      chat.composer.showError(messageOf(error));
      return false;
    }
  }

  #begin() {
    this.following = new AbortController();
    return this.following;
  }

  #end(controller) {
    if (this.following === controller) this.following = null;
  }

  #listener(controller, began) {
    const { chat } = this;
    let board = chat.current?.board ?? null;
    const live = (act) => (data) => {
      if (!controller.signal.aborted) act(data);
    };
    return {
      started: live((json) => {
        began(json);
        board = chat.current.board;
      }),
      restarted: live(() => board.restart()),
      delta: live((data) => board.addText(data.reply_id, data.text)),
      done: live((data) => board.finishReply(data.reply_id, data)),
      failed: live((message) => chat.composer.showError(message)),
      settled: live((json) => (json ? board.update(json) : chat.forget(board.turn))),
    };
  }
}

/** From where a turn goes on that is not the newest: its top reply, else one picked by its id. */
function continuation(turn) {
  const usable = turn.replies.filter((reply) => reply.state === "complete");
  return topReply(turn) ?? usable[turn.id % usable.length] ?? turn.replies[0];
}
