// Writing a prompt by a template, or changing one.

import { call, messageOf } from "./api.js";
import { button, el, toast } from "./dom.js";
import { labelOf, loadTemplates, tagsOf, templateOptions } from "./queue_templates.js";
import { say } from "./words.js";

export class PromptEditor {
  /** `hooks`: saved(). */
  constructor(hooks) {
    this.hooks = hooks;
    this.prompt = null; // the one that is changed; null writes a new one
    this.templates = [];
    this.element = el("section", { class: "panel editor", hidden: true, "data-testid": "prompt-editor" });
  }

  async open(prompt = null) {
    this.prompt = prompt;
    this.element.hidden = false;
    try {
      this.templates = await loadTemplates();
    } catch (error) {
      this.element.replaceChildren(el("p", { class: "field-error", role: "alert" }, messageOf(error)));
      return;
    }
    this.#draw();
    this.element.scrollIntoView({ block: "nearest" });
    this.fieldOf("text").focus();
  }

  close() {
    this.element.hidden = true;
  }

  get template() {
    return this.templates.find((one) => one.name === (this.prompt ? "chat" : this.kind.value));
  }

  fieldOf(name) {
    return this.fields.querySelector(`[name="${name}"]`);
  }

  #draw() {
    const { prompt } = this;
    this.kind = el("select", { class: "field", id: "prompt-kind", "data-testid": "prompt-kind", onchange: () => this.#drawFields() });
    this.kind.append(...templateOptions(this.templates));
    this.fields = el("div", { class: "editor-fields" });
    this.system = el("textarea", {
      class: "field",
      rows: 2,
      dir: "auto",
      "aria-label": say("System prompt"),
      "data-testid": "prompt-system",
    });
    this.system.value = prompt?.system_prompt ?? "";
    this.tags = el("input", {
      class: "field",
      id: "prompt-tags",
      placeholder: say("separated by commas"),
      "data-testid": "prompt-tags",
    });
    this.tags.value = prompt?.tags.join(", ") ?? "";
    this.error = el("p", { class: "field-error", role: "alert", "data-testid": "prompt-error" });
    const task = [el("label", { class: "label", for: "prompt-kind" }, say("Task")), this.kind];
    this.element.replaceChildren(
      el("h2", {}, prompt ? say("Change the prompt") : say("Write a prompt")),
      ...(prompt ? [] : task),
      this.fields,
      el("label", { class: "label", for: "prompt-tags" }, say("Tags")),
      this.tags,
      el(
        "details",
        { open: Boolean(prompt?.system_prompt) },
        el("summary", { class: "hint" }, say("System prompt")),
        this.system,
      ),
      this.error,
      el(
        "div",
        { class: "editor-foot" },
        el("span", { class: "space" }),
        button(say("Close"), () => this.close(), { testid: "prompt-close" }),
        button(prompt ? say("Save") : say("Add"), () => this.#save(), {
          kind: "primary",
          key: "Ctrl+Enter",
          testid: "prompt-save",
        }),
      ),
    );

    this.element.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#save();
      else if (event.key === "Escape") this.close();
    };
    this.#drawFields();
  }

  #drawFields() {
    const kept = this.fieldOf("text")?.value ?? this.prompt?.text ?? "";
    this.fields.replaceChildren(
      ...this.template.fields.flatMap((field) => {
        const id = `prompt-field-${field.name}`;
        const input = el(field.is_long ? "textarea" : "input", {
          id,
          name: field.name,
          class: "field",
          rows: field.is_long ? 5 : null,
          dir: "auto",
          placeholder: field.default || field.placeholder,
          "data-testid": id,
        });
        return [el("label", { class: "label", for: id }, labelOf(this.template, field)), input];
      }),
    );
    this.fieldOf("text").value = kept;
  }

  async #save() {
    if (this.isSaving) return;
    if (!this.fieldOf("text").value.trim()) {
      this.error.textContent = say("Write something first.");
      return;
    }
    this.isSaving = true;
    const tags = tagsOf(this.tags.value);
    const text = this.fieldOf("text").value;
    try {
      if (this.prompt) {
        const body = { text, tags, system_prompt: this.system.value };
        await call("PATCH", `/api/prompts/${this.prompt.id}`, body);
        this.close();
        toast(say("Saved."));
      } else await this.#add(text, tags);
      this.hooks.saved();
    } catch (error) {
      this.error.textContent = messageOf(error);
    } finally {
      this.isSaving = false;
    }
  }

  async #add(text, tags) {
    const others = this.template.fields.filter((field) => field.name !== "text");
    const fields = Object.fromEntries(others.map(({ name }) => [name, this.fieldOf(name).value]));
    const prompt = { text, tags, system_prompt: this.system.value, template: this.template.name, fields };
    const { added } = await call("POST", "/api/prompts", { prompts: [prompt] });
    this.error.textContent = added ? "" : say("The pool has this prompt already.");
    if (!added) return;
    toast(say("The prompt is in the pool."));
    this.fieldOf("text").value = "";
    this.fieldOf("text").focus();
  }
}
