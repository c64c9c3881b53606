// The tab "Knowledge": browse, search and delete items; adding is in add-item.js.

import { deleteItem, getItem, listItems } from "./api.js";
import { AddItem } from "./add-item.js";
import { itemCard } from "./card.js";
import { confirmDeletion } from "./confirm.js";
import { announce, byId, element, problemBox } from "./dom.js";

const PAGE = 20; // items

export class Knowledge {
  /** `askAbout(item)` is called by a card's button. */
  constructor(askAbout) {
    this.askAbout = askAbout;
    this.form = byId("search-form");
    this.items = byId("items");
    this.more = byId("more-items");
    this.loaded = false;
    this.loading = null; // AbortController of the list under way
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#load();
    });
    byId("search").addEventListener("search", (event) => event.target.value || this.#load()); // the field's own cross
    this.more.addEventListener("click", () => this.#load(this.cursor));
    this.adding = new AddItem((itemId) => this.#added(itemId));
    byId("add").addEventListener("click", () => this.adding.open());
  }

  /** Loads the first items when the tab is opened for the first time. */
  open() {
    if (!this.loaded) this.#load();
  }

  /** Shows a page of items: the first, or with a cursor the next one below. Returns whether it is shown. */
  async #load(cursor = null) {
    this.loading?.abort();
    this.loading = new AbortController();
    const fields = new FormData(this.form);
    const asked = { search: fields.get("search").trim(), language: fields.get("language").trim() };
    byId("knowledge-problem").replaceChildren();
    this.items.setAttribute("aria-busy", "true");
    try {
      const page = await listItems({ ...asked, cursor, limit: PAGE }, this.loading.signal);
      this.#show(page, asked, cursor !== null);
      return true;
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
      return false;
    } finally {
      this.items.removeAttribute("aria-busy");
    }
  }

  #show(page, asked, below) {
    if (!below) this.items.replaceChildren();
    const cards = page.items.map((item) => this.#card(item));
    this.items.append(...cards);
    this.loaded = true;
    this.total = page.total;
    this.searched = Boolean(asked.search);
    this.cursor = page.next_cursor;
    if (below) cards[0]?.querySelector("button:not([hidden])")?.focus();
    this.more.hidden = !this.cursor;
    this.#summarize();
    announce(byId("knowledge-summary").textContent);
  }

  #summarize() {
    const [shown, total] = [this.items.childElementCount, this.total].map((n) => n.toLocaleString("en"));
    const text = this.searched ? `The ${shown} nearest of ${total} items` : `${shown} of ${total} items`;
    byId("knowledge-summary").textContent = this.items.childElementCount ? text : "No items.";
  }

  #card(item) {
    const about = element(
      "button",
      { type: "button", onclick: () => this.#about(item) },
      "Ask about this",
      aside(item),
    );
    const remove = element(
      "button",
      { type: "button", class: "quiet", onclick: () => this.#delete(item, card) },
      "Delete",
      aside(item),
    );
    const card = itemCard(item, 3, [about, remove]);
    return card;
  }

  async #about(item) {
    try {
      await this.askAbout(item);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #delete(item, card) {
    if (!(await confirmDeletion(item.title))) return;
    try {
      await deleteItem(item.item_id);
    } catch (error) {
      if (error.status !== 404) return this.#fail(error); // 404: somebody else was faster
    }
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    this.total -= 1;
    this.#summarize();
    (next?.querySelector(".card-actions button") ?? byId("search")).focus();
    announce(`${item.title} is deleted.`);
  }

  /** The new item comes first, whatever was searched before. */
  async #added(itemId) {
    this.form.reset();
    if (!(await this.#load())) return;
    let card = this.items.querySelector(`[data-item-id="${CSS.escape(itemId)}"]`);
    try {
      card ??= this.#card(await getItem(itemId)); // one that was there before is not among the newest
    } catch (error) {
      return this.#fail(error);
    }
    this.items.prepend(card);
    this.#summarize();
    card.classList.add("new");
    card.querySelector(".card-actions button").focus();
    announce("The item is added. It is the first of the list.");
  }

  #fail(problem) {
    byId("knowledge-problem").replaceChildren(problemBox(problem));
  }
}

const aside = (item) => element("span", { class: "hidden-text" }, `: ${item.title}`);
