// The first screen: what was trained, and what came of it.

const TILES = ["success", "j", "cdr", "cr", "message_tokens_per_episode"];
const SHORT = { success: "Success", j: "J", cdr: "CDR", cr: "CR", message_tokens_per_episode: "Message tokens" };

async function showOverview(main) {
  document.title = store.overview.runs.map((run) => run.name).join(", ");
  const { runs, charts } = store.overview;
  main.replaceChildren(
    el(
      "div",
      { class: "wide" },
      runs.map(aboutRun),
      charts.curves.length > 0 && [
        el("h2", {}, "Curves"),
        el("p", { class: "note" }, CURVE_NOTE),
        el(
          "div",
          { class: "charts small" },
          charts.curves.map((spec) => chart(spec)),
        ),
      ],
      runs.map(cameOfIt),
      more(charts.learning),
    ),
  );
  scrollTo(0, 0);
  await drawCharts(main);
}

const CURVE_NOTE = "Each update by itself. Bands: 95 % intervals over its episodes.";

const titleOf = (run) => (several() && run.name !== run.label ? `${run.name}: ${run.label}` : run.name);

function aboutRun(run) {
  const tiles = TILES.map((name) => run.results.rows.find((row) => row.metric === name)).filter(Boolean);
  return el(
    "section",
    { class: "run" },
    el(
      "header",
      {},
      el("h1", {}, titleOf(run)),
      el("span", { class: `badge ${run.finished ? "done" : "open"}` }, run.finished ? "finished" : "not finished"),
      run.last_written && el("span", { class: "faint" }, `last written ${run.last_written}`),
    ),
    [...run.alarms, ...run.notices].map((notice) => el("p", { class: "notice" }, notice)),
    el(
      "dl",
      { class: "facts" },
      Object.entries(run.facts).map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))),
    ),
    tiles.length > 0 && el("div", { class: "tiles" }, tiles.map((row) => tile(row, run.results.labels))),
    run.tables.map(evaluationTable),
    tiles.length + run.tables.length === 0 && el("p", { class: "empty" }, "Nothing has been played yet."),
  );
}

/** A table of `marl-coop eval`: of a condition, or of the differences of a team. */
const evaluationTable = ({ title, heads, rows, labels, note }) => [
  el("h2", {}, title),
  note && el("p", { class: "note" }, note),
  el(
    "div",
    { class: "scroll" },
    numbers(
      heads,
      rows.map((row) =>
        el(
          "tr",
          {},
          row.map((cell, i) => el(i < labels ? "th" : "td", {}, cell)),
        ),
      ),
    ),
  ),
];

function cameOfIt(run) {
  if (run.tables.length) return null;
  return el(
    "section",
    { class: "run" },
    several() && el("h1", {}, titleOf(run)),
    run.flips.length > 0 && flips(run),
    run.terms.length > 0 && terms(run),
    run.results.rows.length > 0 && outcome(run),
    (run.command || run.config) &&
      el(
        "details",
        {},
        el("summary", {}, "Command and configuration"),
        run.command && el("pre", {}, run.command),
        run.config && el("pre", {}, run.config),
      ),
  );
}

function outcome(run) {
  const { rows, labels, episodes } = run.results;
  const played = labels.map((label, side) => episodes[side] && `${episodes[side]} episodes ${label}`).filter(Boolean);
  return [
    el("h2", {}, "In numbers"),
    el(
      "p",
      { class: "note" },
      `${played.join(", ")}. Brackets and lines: 95 % intervals. Green tick: ideal players on the same tasks.`,
    ),
    el(
      "div",
      {},
      el("div", { class: "scroll" }, numbers(["", ...labels, "change", "ceiling", "cases"], rows.map(resultRow))),
      chart(run.charts.results, "sides"),
    ),
  ];
}

/** Whether a change is one: its interval leaves out 0. */
function judged(row) {
  const { change, better } = row;
  if (!change || change.low === null || (change.low <= 0 && change.high >= 0)) return null;
  return better ? change.value > 0 === (better === "more") : null;
}

/** A result at a glance: with what it was before where both are of the same tasks, else with what it is of. */
function tile(row, labels) {
  const digits = digitsOf(row.metric);
  const good = judged(row);
  const now = row.after ?? row.before;
  return el(
    "div",
    { class: "tile", title: row.doc },
    el("span", { class: "label" }, SHORT[row.metric]),
    el(
      "span",
      { class: "value" },
      row.change && el("span", { class: "was" }, `${number(row.before.value, digits)} → `),
      number(now.value, digits),
    ),
    el(
      "span",
      { class: `change ${good === null ? "" : good ? "right" : "wrong"}` },
      row.change
        ? `${withInterval(row.change, digits, signed)}${good === null ? "" : good ? " better" : " worse"}`
        : `${labels[row.after ? 1 : 0]}, ${whole(now.n)} cases`,
    ),
  );
}

function resultRow(row) {
  const digits = digitsOf(row.metric);
  const good = judged(row);
  return el(
    "tr",
    { title: row.doc },
    el("th", {}, row.label),
    el("td", {}, withInterval(row.before, digits)),
    el("td", {}, withInterval(row.after, digits)),
    el("td", { class: good === null ? "" : good ? "right" : "wrong" }, withInterval(row.change, digits)),
    el("td", {}, number(row.ceiling, digits)),
    el("td", {}, whole((row.change ?? row.after ?? row.before).n)),
  );
}

// counts[partner right][right before][right after], true first
const FLIPS = [
  {
    title: "partner was right",
    names: [
      ["held", "gave up what was right"],
      ["deferred rightly", "did not move"],
    ],
  },
  {
    title: "partner was wrong",
    names: [
      ["held rightly", "gave in"],
      ["found it nevertheless", "both stayed wrong"],
    ],
  },
];

function flips(run) {
  return [
    el("h2", {}, "Who moved"),
    el(
      "p",
      { class: "note" },
      "Seats and decisions by the sealed answer before the talk and the one acted on. Shares are of a row.",
    ),
    el("div", { class: "beside" }, run.flips.map(flipTable)),
  ];
}

function flipTable({ label, counts }) {
  return el(
    "table",
    { class: "flips" },
    el("caption", {}, label),
    FLIPS.map(({ title, names }, partner) => [
      el("tr", {}, el("th", { scope: "col" }, title), el("th", {}, "ended right"), el("th", {}, "ended wrong")),
      ["was right", "was wrong"].map((before, own) => {
        const total = counts[partner][own][0] + counts[partner][own][1];
        return el(
          "tr",
          {},
          el("th", { scope: "row" }, before),
          [0, 1].map((end) => flipCell(counts[partner][own][end], total, names[own][end], end === 0)),
        );
      }),
    ]),
  );
}

function flipCell(count, total, name, right) {
  const share = total ? count / total : 0;
  return el(
    "td",
    { class: right ? "right" : "wrong", style: { "--share": share.toFixed(3) } },
    el("b", {}, whole(count)),
    el("span", {}, total ? ` ${Math.round(100 * share)} %` : ""),
    el("small", {}, name),
  );
}

function terms(run) {
  const ends = (values, digits) => {
    const known = values.filter((value) => value !== null);
    return known.length ? `${number(known[0], digits)} → ${number(known.at(-1), digits)}` : "–";
  };
  return [
    el("h2", {}, "Share of each reward term"),
    el(
      "p",
      { class: "note" },
      "How much of the advantages is each term's doing, by update; and the first and last update in numbers.",
    ),
    el(
      "div",
      { class: "beside" },
      chart(run.charts.terms),
      numbers(
        ["term", "share", "value before weight"],
        run.terms.map((term) =>
          el(
            "tr",
            { title: term.doc },
            el("th", {}, term.term),
            el("td", {}, ends(term.share, 2)),
            el("td", {}, ends(term.pay, 2)),
          ),
        ),
      ),
    ),
  ];
}

function more(specs) {
  if (!specs.length) return null;
  const details = el(
    "details",
    {},
    el("summary", {}, "The learner itself: KL, entropy, value loss"),
    el("div", { class: "charts" }),
  );
  details.addEventListener("toggle", () => {
    const box = details.querySelector(".charts");
    if (details.open && !box.children.length) {
      box.append(...specs.map((spec) => chart(spec)));
      drawCharts(box);
    }
  });
  return details;
}

const specOf = new WeakMap(); // of each place for a chart

function chart(spec, kind = "") {
  if (!spec) return null;
  const box = el("div", { class: `chart ${kind}` });
  specOf.set(box, spec);
  return box;
}

// after Okabe and Ito (2008): the colour-blind can tell them apart
const PALETTE = {
  light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7d5fb2", "#6f767d"],
  dark: ["#56b4e9", "#e8853d", "#2fc49a", "#dd97bd", "#3d7fd6", "#e6b422", "#ab95dd", "#9aa3ab"],
};

/** Draw every chart within an element in the colours of the page. */
async function drawCharts(root) {
  const css = getComputedStyle($("bar"));
  const [ink, quiet, font] = [css.color, getComputedStyle($("bar").querySelector(".grow")).color, css.fontFamily];
  const axis = {
    labelColor: quiet,
    titleColor: quiet,
    domainColor: quiet,
    tickColor: quiet,
    gridColor: quiet,
    gridOpacity: 0.15,
  };
  const config = {
    range: { category: PALETTE[dark() ? "dark" : "light"] },
    background: "transparent",
    font,
    view: { stroke: null },
    axis: { ...axis, labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal" },
    legend: { labelColor: ink, labelFontSize: 12 },
    title: { color: ink, fontSize: 13, fontWeight: 600, anchor: "start" },
  };
  const options = { actions: false, ast: true, renderer: "svg", config, tooltip: { theme: dark() ? "dark" : "light" } };
  const boxes = [...root.querySelectorAll(".chart")];
  await Promise.all(boxes.map((box) => vegaEmbed(box, specOf.get(box), options)));
}
