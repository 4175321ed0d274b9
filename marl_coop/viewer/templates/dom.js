"use strict";
// Elements and numbers. Text only ever becomes text nodes: there is no HTML in any string here.

/** An element; attributes that start with "on" are listeners, null and false ones are left out. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, to] of Object.entries(value)) element.style.setProperty(key, to);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

const $ = (id) => document.getElementById(id);

const number = (value, digits = 2) =>
  value === null || value === undefined
    ? "–"
    : (Math.abs(value) < 0.5 / 10 ** digits ? 0 : value).toFixed(digits).replace("-", "−");
const signed = (value, digits = 2) => (value > 0 ? "+" : "") + number(value, digits);
const whole = (value) => value.toLocaleString("en");
const counted = (value, name) => `${whole(value)} ${name}${value === 1 ? "" : "s"}`;

/** "0.45 [0.33, 0.56]", and a dash where nothing is known. */
function withInterval(metric, digits = 2, write = number) {
  if (!metric) return "–";
  const ends = metric.low === null ? "" : ` [${number(metric.low, digits)}, ${number(metric.high, digits)}]`;
  return write(metric.value, digits) + ends;
}

/** Decimals that suit a metric: tokens have one, rates two. */
const digitsOf = (metric) => (metric.includes("tokens") ? 1 : 2);

/** Right or wrong by sign and colour; nothing where it is not known. */
function verdict(right, title = null) {
  if (right === null || right === undefined) return el("span", { class: "verdict" }, "");
  return el(
    "span",
    { class: `verdict ${right ? "right" : "wrong"}`, title: title ?? (right ? "right" : "wrong"), role: "img" },
    right ? "✓" : "✗",
  );
}

/** A table of a kind: names of its columns, and its rows, each a `tr`. */
const table = (kind, heads, rows) =>
  el(
    "table",
    { class: kind },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        heads.map((name) => el("th", {}, name)),
      ),
    ),
    el("tbody", {}, rows),
  );

/** What some words mean, on demand: pairs of both. */
const meanings = (pairs, title = "What these mean") =>
  pairs.length > 0 &&
  el(
    "details",
    { class: "meanings" },
    el("summary", {}, title),
    el(
      "dl",
      {},
      pairs.map(([word, meaning]) => [el("dt", {}, word), el("dd", {}, meaning)]),
    ),
  );

/** The number of a seat's colour, by its place at the table. */
const seatClass = (index) => `seat-${index % 8}`;

/** Code as `text.highlighted` gives it: lines of [kind, text]. */
const line = (spans) => spans.map(([kind, text]) => (kind ? el("span", { class: `t-${kind}` }, text) : text));
const code = (lines) =>
  el(
    "pre",
    { class: "code" },
    lines.map((spans) => [...line(spans), "\n"]),
  );
