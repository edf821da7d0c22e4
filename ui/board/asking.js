// Asking for replies: sending a message, asking again, and following what is written.

import { messageOf } from "./api.js";
import { continuation } from "./branches.js";
import { health } from "./health.js";
import { wishes } from "./preferences.js";
import { followTurn, startTurn } from "./stream.js";
import { isStreaming } from "./turns.js";
import { say } from "./words.js";

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
      composer.showNote(STILL_WRITING());
      return false;
    }
    if (health().value?.status === "loading") {
      this.heldText = text;
      composer.showNote(
        say("The model is still loading. Your message is sent as soon as it is ready."),
      );
      return false;
    }
    // The order decides where the chat goes on, so it must be stored first.
    if (current?.board.saving === "yes") await current.board.chain;
    const body = { ...wishes(), text };
    const { goOnFrom } = this.chat;
    if (goOnFrom) body.parent_reply_id = goOnFrom.id;
    else if (leaf !== (turns.at(-1) ?? null)) body.parent_reply_id = continuation(leaf).id;
    return this.#ask(body);
  }

  /** Ask the shown message again, for replies to rank: a sibling of the current turn. */
  async regenerate() {
    const { leaf } = this.chat;
    if (leaf) await this.askAgain(leaf, leaf.text);
  }

  /** Ask a message, changed or not, at the place of a turn; true when the server took it. */
  async askAgain(turn, text) {
    const { leaf, composer } = this.chat;
    if (leaf && isStreaming(leaf)) {
      composer.showNote(STILL_WRITING());
      return false;
    }
    const asks = text === turn.text ? { ask: "every" } : {};
    return this.#ask({ ...wishes(), ...asks, text, parent_reply_id: turn.parentReplyId });
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
      asked: live((json) => (board = chat.widen(board.turn, json))),
      restarted: live(() => board.restart()),
      choosing: live((data) => board.showProgress(data)),
      delta: live((data) => board.addText(data.reply_id, data.text)),
      done: live((data) => board.finishReply(data.reply_id, data)),
      failed: live((message) => chat.composer.showError(message)),
      settled: live((json) => (json ? board.update(json) : chat.forget(board.turn))),
    };
  }
}

const STILL_WRITING = () =>
  say("The replies are still being written. Wait for them, or press Stop; your message stays here.");
