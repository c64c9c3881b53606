// The tab "Ask": one question in one mode, or in all modes to compare.

import { getImage } from "./api.js";
import { AnswerPanel } from "./answer-panel.js";
import { announce, byId, element } from "./dom.js";
import { ImageField } from "./image-field.js";

const MODES = { none: "None: the model alone", rag: "RAG: items in the prompt", memory: "Memory: 8 vectors per item" };

export class Ask {
  constructor() {
    this.form = byId("ask-form");
    this.question = byId("question");
    this.image = new ImageField(byId("ask-image"));
    this.stop = byId("stop");
    this.running = null; // AbortController of the question under way
    this.form.addEventListener("submit", (event) => this.#submit(event));
    byId("compare").addEventListener("click", () => this.#run((question, signal) => this.#compare(question, signal)));
    this.stop.addEventListener("click", () => this.running?.abort());
    this.question.addEventListener("keydown", (event) => this.#key(event));
    this.form.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
  }

  /** Puts an item's image into the form. */
  async about(item) {
    await this.image.set(await getImage(item.item_id));
    this.question.focus();
  }

  #submit(event) {
    event.preventDefault();
    this.#run((question, signal) => this.#single(question, signal));
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // composing: Enter picks a character
    event.preventDefault();
    this.form.requestSubmit();
  }

  /** One run at a time: a further one stops that under way. */
  async #run(show) {
    if (!this.question.value.trim()) {
      this.question.setAttribute("aria-invalid", "true");
      this.question.focus();
      announce("Type a question first.");
      return;
    }
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    this.stop.hidden = false;
    announce("Answering.");
    const shown = show(await this.#fields(), running.signal);
    bringIntoView(byId("answers"));
    await shown;
    if (this.running === running) this.#finish();
  }

  #finish() {
    this.running = null;
    if (document.activeElement === this.stop) this.question.focus(); // else the focus would be lost with the button
    this.stop.hidden = true;
  }

  async #fields() {
    const fields = new FormData(this.form);
    const question = { question: fields.get("question"), mode: fields.get("mode") };
    const image = await this.image.dataUri();
    if (image) question.image = image;
    if (fields.get("top_k")) question.top_k = Number(fields.get("top_k"));
    if (fields.get("language").trim()) question.language = fields.get("language").trim();
    return question;
  }

  async #single(question, signal) {
    const panel = new AnswerPanel("Answer");
    byId("answers").replaceChildren(panel.element);
    this.#mark(await panel.ask(question, signal));
  }

  /** One mode after the other: at once, they would slow one another, and the times would not compare. */
  async #compare(question, signal) {
    const panels = Object.entries(MODES).map(([mode, title]) => ({ mode, panel: new AnswerPanel(title) }));
    const columns = element("div", { class: "columns" }, ...panels.map(({ panel }) => panel.element));
    const note = element(
      "p",
      { class: "hint" },
      "Asked one after the other, so that the times compare. All bars have one scale.",
    );
    byId("answers").replaceChildren(note, columns);
    for (const { mode, panel } of panels) {
      if (signal.aborted) panel.skip();
      else this.#mark(await panel.ask({ ...question, mode }, signal));
      scaleTogether(panels.map(({ panel }) => panel));
    }
  }

  /** Marks the field that a problem is about. */
  #mark(problem) {
    const names = {
      image: "#ask-image-input",
      question: "[name=question]",
      top_k: "[name=top_k]",
      language: "[name=language]",
    };
    const selector = names[problem?.field];
    if (selector) this.form.querySelector(selector).setAttribute("aria-invalid", "true");
  }
}

/** Scrolls only where the answers begin near the lower edge, or below it: on a phone. */
function bringIntoView(answers) {
  if (answers.getBoundingClientRect().top < innerHeight * 0.6) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  answers.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
}

/** Draws the bars of several answers in proportion to the largest of all. */
function scaleTogether(panels) {
  for (const kind of ["times", "tokens"]) {
    const bars = panels.map((panel) => panel[kind]).filter(Boolean);
    const largest = Math.max(0, ...bars.map((b) => b.largest));
    for (const b of bars) b.scale(largest);
  }
}
