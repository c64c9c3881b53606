// A knowledge item as a card: image, title, text with "more", badges, and a link to the page it comes from.

import { imageUrl } from "./api.js";
import { element } from "./dom.js";

/** `level`: of the title among the headings. `actions`: buttons below the text. */
export function itemCard(item, level, actions = []) {
  const text = element("p", { class: "card-text", dir: "auto", lang: item.language }, item.text);
  const more = moreButton(text, item.title);
  const link = sourceLink(item);
  return element(
    "li",
    { class: "card", "data-item-id": item.item_id },
    cardImage(item),
    element(
      "div",
      { class: "card-body" },
      element(
        "div",
        { class: "card-head" },
        element(`h${level}`, { dir: "auto", lang: item.language }, item.title),
        badges(item),
      ),
      text,
      element("div", { class: "card-links" }, more, link),
      actions.length ? element("div", { class: "card-actions" }, ...actions) : null,
    ),
  );
}

function cardImage(item) {
  const image = element("img", {
    src: imageUrl(item.item_id),
    alt: `Image of ${item.title}`,
    loading: "lazy",
    decoding: "async",
  });
  image.addEventListener("error", () => image.classList.add("broken"));
  return element("div", { class: "card-image" }, image);
}

function badges(item) {
  const score =
    typeof item.score === "number" ? element("span", { class: "badge score" }, `score ${item.score.toFixed(3)}`) : null;
  const live = item.live ? element("span", { class: "badge live" }, "live") : null;
  const language = item.language
    ? element("span", { class: "badge", title: languageName(item.language) }, item.language)
    : null;
  return element("span", { class: "badges" }, score, live, language);
}

function languageName(tag) {
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(tag);
  } catch {
    return tag;
  }
}

/** A link only to http and https: a URL is data like any other. */
function sourceLink(item) {
  if (!item.page_url || !URL.canParse(item.page_url)) return null;
  const url = new URL(item.page_url);
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  const name = element("span", { class: "hidden-text" }, ` of ${item.title} (${url.host}, opens a new tab)`);
  return element("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, "Source page", name);
}

function moreButton(text, title) {
  const subject = element("span", { class: "hidden-text" }, ` of the text of ${title}`);
  const word = document.createTextNode("more");
  const button = element(
    "button",
    { type: "button", class: "more", hidden: true, "aria-expanded": "false" },
    word,
    subject,
  );
  button.addEventListener("click", () => {
    const open = text.classList.toggle("open");
    button.setAttribute("aria-expanded", open);
    word.data = open ? "less" : "more";
  });
  whereCut.set(text, button);
  sizes.observe(text);
  return button;
}

// The button is there where the text is cut, which depends on the width.
const whereCut = new WeakMap();
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (!target.classList.contains("open"))
      whereCut.get(target).hidden = target.scrollHeight <= target.clientHeight + 1;
  }
});
