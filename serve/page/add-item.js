// The dialog that adds an item, with what the API says about its fields beside them.

import { addItem, sentence } from "./api.js";
import { byId, problemBox } from "./dom.js";
import { ImageField } from "./image-field.js";

export class AddItem {
  /** `onAdded(itemId)` is called when the service has taken the item. */
  constructor(onAdded) {
    this.onAdded = onAdded;
    this.dialog = byId("add-dialog");
    this.form = byId("add-form");
    this.image = new ImageField(byId("add-image"));
    this.sent = { body: "", key: "" }; // the last request; another try of the same one has the same key
    this.form.addEventListener("submit", (event) => this.#submit(event));
    this.form.addEventListener("input", (event) => this.#clearError(event.target.name));
    byId("add-cancel").addEventListener("click", () => this.dialog.close());
  }

  open() {
    this.dialog.showModal();
  }

  async #submit(event) {
    event.preventDefault();
    if (this.form.getAttribute("aria-busy") === "true") return;
    this.#clearErrors();
    this.form.setAttribute("aria-busy", "true");
    try {
      const item = await this.#item();
      const added = await addItem(item, this.#key(item));
      this.dialog.close();
      this.form.reset();
      this.image.clear();
      await this.onAdded(added.item_id);
    } catch (problem) {
      this.#fail(problem);
    } finally {
      this.form.setAttribute("aria-busy", "false");
    }
  }

  async #item() {
    const fields = new FormData(this.form);
    const image = await this.image.dataUri();
    const texts = ["title", "text", "language", "page_url"].map((name) => [name, fields.get(name).trim()]);
    return Object.fromEntries([["image", image], ...texts].filter(([, value]) => value)); // the API names what is missing
  }

  #key(item) {
    const body = JSON.stringify(item);
    if (body !== this.sent.body) this.sent = { body, key: randomKey() };
    return this.sent.key;
  }

  /** Next to the field that the problem names (items.0.title); else below the form. */
  #fail(problem) {
    const name = problem.field?.replace(/^items\.0\./, "");
    const message = [...this.form.querySelectorAll("[data-error-of]")].find((p) => p.dataset.errorOf === name);
    if (!message) {
      byId("add-problem").replaceChildren(problemBox(problem));
      return;
    }
    message.textContent = sentence(problem.message.replace(/items\.0\./gi, ""));
    const input = name === "image" ? this.image.input : this.form.elements.namedItem(name);
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }

  #clearErrors() {
    byId("add-problem").replaceChildren();
    for (const message of this.form.querySelectorAll("[data-error-of]")) this.#clearError(message.dataset.errorOf);
  }

  #clearError(name) {
    const message = [...this.form.querySelectorAll("[data-error-of]")].find((p) => p.dataset.errorOf === name);
    if (message) message.textContent = "";
    for (const input of this.form.querySelectorAll("[aria-invalid]")) {
      if (input.name === name || input === this.image.input) input.removeAttribute("aria-invalid");
    }
  }
}

// Not crypto.randomUUID, which a page over plain http does not have.
const randomKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
