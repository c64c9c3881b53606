// A field for one image: drop it, paste it, or choose a file. Shows it, and removes it.

import { announce, element } from "./dom.js";
import { asDataUri, prepareImage } from "./image.js";

const fields = [];

export class ImageField {
  /** Fills `host`. The field takes what is pasted or dropped anywhere while it is the last visible one. */
  constructor(host) {
    const id = `${host.id}-input`;
    this.host = host;
    this.file = null; // chosen last
    this.prepared = null;
    this.preparing = Promise.resolve();
    this.input = element("input", {
      type: "file",
      accept: "image/*",
      id,
      class: "hidden-text",
      "aria-describedby": `${id}-note ${id}-error`,
      onchange: () => this.set(this.input.files[0]),
    });
    this.preview = element("img", { alt: "Preview of your image", hidden: true });
    this.note = element("p", { class: "hint", id: `${id}-note` });
    this.error = element("p", { class: "field-error", id: `${id}-error`, "data-error-of": "image" });
    this.removal = element(
      "button",
      { type: "button", hidden: true, onclick: () => this.remove() },
      "Remove",
      element("span", { class: "hidden-text" }, " image"),
    );
    const invitation = element("span", {}, element("b", {}, "Choose an image"), " or drop or paste one");
    host.classList.add("image-field");
    host.append(
      element("label", { for: id, class: "drop" }, this.input, this.preview, invitation),
      element("div", { class: "image-below" }, this.note, this.removal),
      this.error,
    );
    fields.push(this);
  }

  /** Takes a file or blob. */
  set(file) {
    if (file) this.preparing = this.#take(file);
    return this.preparing;
  }

  async #take(file) {
    this.file = file;
    const prepared = await prepareImage(file);
    if (this.file !== file) return; // another was chosen meanwhile, or this one was removed
    this.#release();
    this.prepared = prepared;
    this.preview.hidden = !prepared.shown;
    if (prepared.shown) this.preview.src = URL.createObjectURL(prepared.blob);
    this.#show(prepared.note);
    announce(`Image taken. ${prepared.note}`);
  }

  clear() {
    this.#release();
    this.file = null;
    this.prepared = null;
    this.preview.hidden = true;
    this.preview.removeAttribute("src");
    this.#show("");
  }

  remove() {
    this.clear();
    this.input.focus();
    announce("Image removed.");
  }

  /** The image as a data URI; null without one. */
  async dataUri() {
    await this.preparing; // who asks at once means the image just chosen
    return this.prepared && asDataUri(this.prepared.blob);
  }

  get visible() {
    return this.host.checkVisibility?.() ?? this.host.offsetParent !== null;
  }

  #show(note) {
    this.host.classList.toggle("filled", this.prepared !== null);
    this.input.value = ""; // the same file can be chosen again
    this.input.removeAttribute("aria-invalid");
    this.error.textContent = "";
    this.note.textContent = note;
    this.removal.hidden = this.prepared === null;
  }

  #release() {
    if (this.preview.src) URL.revokeObjectURL(this.preview.src);
  }
}

const firstImage = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
const current = () => fields.findLast((field) => field.visible);

/** Takes images that are dropped or pasted anywhere on the page. */
export function listenForImages() {
  document.addEventListener("paste", (event) => {
    const [file, field] = [firstImage(event.clipboardData), current()];
    if (!file || !field) return;
    event.preventDefault();
    field.set(file);
  });
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault(); // else the browser would leave the page for the file
    current()?.host.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) unmark();
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    unmark();
    current()?.set(firstImage(event.dataTransfer));
  });
}

function unmark() {
  for (const field of fields) field.host.classList.remove("over");
}
