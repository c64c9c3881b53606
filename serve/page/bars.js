// Where the time and the tokens of an answer went: two small tables with bars.

import { element } from "./dom.js";

const STAGES = ["retrieve", "memory", "items", "answer"];
const ROWS_OF_USAGE = {
  prompt_tokens: "prompt tokens",
  memory_vectors: "memory vectors",
  completion_tokens: "answer tokens",
};

/** A table with one bar per row. `scale(largest)` draws the bars in proportion to that value. */
class Bars {
  constructor(caption, rows, unit) {
    this.largest = Math.max(0, ...rows.map(({ value }) => value));
    this.bars = rows.map(({ name, value }) => ({ value, bar: element("span", { class: `bar bar-${name}` }) }));
    const cells = rows.map(({ name, label, value }, i) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, label),
        element("td", { class: "number" }, unit(value)),
        element("td", { class: "track", "aria-hidden": "true" }, this.bars[i].bar),
      ),
    );
    this.element = element("table", { class: "bars" }, element("caption", {}, caption), element("tbody", {}, ...cells));
    this.scale(this.largest);
  }

  scale(largest) {
    for (const { bar, value } of this.bars) bar.style.setProperty("--share", largest ? value / largest : 0);
  }
}

/** The bars of the milliseconds per stage. Stages may overlap, so they need not add up to the total. */
export function timeBars(timings) {
  const stages = [
    ...STAGES.filter((name) => name in timings),
    ...Object.keys(timings).filter((name) => !STAGES.includes(name) && name !== "total"),
  ];
  if ("total" in timings) stages.push("total");
  return new Bars(
    "Time",
    stages.map((name) => ({ name, label: name, value: timings[name] })),
    milliseconds,
  );
}

export function tokenBars(usage) {
  const rows = Object.entries(ROWS_OF_USAGE).map(([name, label]) => ({ name, label, value: usage[name] ?? 0 }));
  return new Bars("Tokens", rows, (value) => value.toLocaleString("en"));
}

export const milliseconds = (value) =>
  value < 1000 ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : `${(value / 1000).toFixed(2)} s`;
