// One answer as it comes: text, sources, time and tokens.

import { streamAnswer } from "./api.js";
import { timeBars, tokenBars } from "./bars.js";
import { itemCard } from "./card.js";
import { announce, element, problemBox } from "./dom.js";

export class AnswerPanel {
  /** `title` also names the answer to a screen reader. */
  constructor(title) {
    this.title = title;
    this.state = element("span", { class: "state" }, "waiting");
    this.text = element("p", { class: "answer-text", dir: "auto" });
    this.main = element("div", { class: "answer-main" }, this.text);
    this.sources = element("div", { class: "answer-sources" });
    this.bars = element("div", { class: "answer-bars" });
    const heading = element("h3", {}, title);
    this.element = element(
      "section",
      { class: "answer", "aria-label": title },
      element("header", {}, heading, this.state),
      this.main,
      this.bars,
      this.sources,
    );
  }

  /** Asks, and shows what comes. Returns the Problem, if there was one. The text stays where it was stopped. */
  async ask(question, signal) {
    this.#running(true);
    try {
      for await (const { name, data } of streamAnswer(question, signal)) this.#show(name, data);
    } catch (error) {
      if (error.name === "AbortError") this.state.textContent = "stopped";
      else return this.#fail(error);
    } finally {
      this.#running(false);
    }
    return null;
  }

  /** Says that this answer will not be asked for. */
  skip() {
    this.state.textContent = "not asked";
  }

  #show(name, data) {
    if (name === "sources") this.#showSources(data.sources);
    if (name === "token") this.text.append(data.text); // one text node per piece: what is there is not laid out anew
    if (name === "done") this.#finish(data);
  }

  #showSources(sources) {
    if (!sources.length) return;
    const cards = sources.map((source) => itemCard(source, 5));
    this.sources.replaceChildren(element("h4", {}, "Sources"), element("ul", { class: "items" }, ...cards));
  }

  #finish(reply) {
    this.text.textContent = reply.answer.trim() || "(The answer is empty.)";
    this.text.classList.toggle("none", !reply.answer.trim());
    this.state.textContent = reply.finish_reason === "length" ? "cut at the token limit" : "";
    this.times = timeBars(reply.timings_ms);
    this.tokens = tokenBars(reply.usage);
    this.bars.replaceChildren(this.times.element, this.tokens.element);
    const count = reply.sources.length;
    announce(`${this.title}: ${this.text.textContent} ${count} ${count === 1 ? "source" : "sources"}.`);
  }

  #fail(problem) {
    this.state.textContent = "failed";
    this.main.append(problemBox(problem));
    return problem;
  }

  #running(running) {
    this.element.setAttribute("aria-busy", running);
    this.text.classList.toggle("streaming", running);
    if (running) this.state.textContent = "answering";
  }
}
