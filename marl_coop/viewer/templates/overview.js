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
      several() ? runTable(runs) : runs.map(aboutRun),
      charts.curves.charts.length > 0 && [
        el("h2", {}, "Curves"),
        el("p", { class: "note" }, CURVE_NOTE),
        overUpdates(charts.curves, "small"),
      ],
      runs.map((run) => [several() && aboutRun(run), cameOfIt(run)]),
      more(charts.learning),
    ),
  );
  scrollTo(0, 0);
  await drawCharts(main);
}

const CURVE_NOTE = "Each update by itself. Bands: 95 % intervals over its episodes.";

const titleOf = (run) => (several() && run.name !== run.label ? `${run.name}: ${run.label}` : run.name);

const resultOf = (run, metric) => run.results.rows.find((row) => row.metric === metric);
const newest = (row) => row.after ?? row.before;
const casesOf = (row) => (row.change ?? newest(row)).n;
const known = (list) => list.filter(Boolean).join(", ");

/** Several runs at a glance: a row each. */
function runTable(runs) {
  const metrics = TILES.filter((metric) => runs.some((run) => resultOf(run, metric)));
  const cell = (row) => {
    if (!row) return el("td", {}, "–");
    const digits = digitsOf(row.metric);
    const was = row.after && row.before ? `${number(row.before.value, digits)} → ` : "";
    return el(
      "td",
      {},
      el("span", { class: "faint" }, was),
      `${withInterval(newest(row), digits)} of ${whole(newest(row).n)}`,
      row.ceiling !== null && el("div", { class: "faint" }, `ceiling ${number(row.ceiling, digits)}`),
    );
  };
  const rows = runs.filter((run) => !run.tables.length).map((run) =>
    el(
      "tr",
      {},
      el("th", {}, titleOf(run), el("div", { class: "faint" }, run.results.rows.length ? run.results.labels[1] : "")),
      metrics.map((metric) => cell(resultOf(run, metric))),
    ),
  );
  const heads = ["run", ...metrics.map((metric) => SHORT[metric])];
  return metrics.length > 0 && el("div", { class: "scroll" }, table("numbers", heads, rows));
}

function aboutRun(run) {
  const tiles = TILES.map((metric) => resultOf(run, metric)).filter(Boolean);
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
    table(
      "numbers",
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
    run.results.rows.length > 0 && flips(run),
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
  const played = labels.map((label, side) => episodes[side] && `${episodes[side]} episodes ${label}`);
  const ceiling = rows.some((row) => row.ceiling !== null);
  return [
    el("h2", {}, "In numbers"),
    el(
      "p",
      { class: "note" },
      `${known(played)}. Brackets and lines: 95 % intervals. `,
      ceiling
        ? "Green tick: ideal players on the same tasks."
        : !run.finished && "The ceiling is measured when a run ends.",
    ),
    el(
      "div",
      {},
      el(
        "div",
        { class: "scroll" },
        table("numbers", ["", ...labels, "change", "ceiling", "cases"], rows.map(resultRow)),
      ),
      chart(run.charts.results, "sides"),
      meanings(rows.map(({ label, doc }) => [label, doc])),
    ),
  ];
}

/** Whether a change is one: its interval leaves out 0. */
function judged(row) {
  const { change, better } = row;
  if (!change || change.low === null || (change.low <= 0 && change.high >= 0)) return null;
  return better ? change.value > 0 === (better === "more") : null;
}

/** A result at a glance: with what it was before where both are of the same tasks, else with when it was played. */
function tile(row, labels) {
  const digits = digitsOf(row.metric);
  const good = judged(row);
  return el(
    "div",
    { class: "tile" },
    el("span", { class: "label" }, SHORT[row.metric]),
    el(
      "span",
      { class: "value" },
      row.change && el("span", { class: "was" }, `${number(row.before.value, digits)} → `),
      number(newest(row).value, digits),
    ),
    el(
      "span",
      { class: `change ${good === null ? "" : good ? "right" : "wrong"}` },
      row.change
        ? `${withInterval(row.change, digits, signed)}${good === null ? "" : good ? " better" : " worse"}`
        : labels[row.after ? 1 : 0],
    ),
    el(
      "span",
      { class: "faint of" },
      known([counted(casesOf(row), "case"), row.ceiling !== null && `ceiling ${number(row.ceiling, digits)}`]),
    ),
  );
}

function resultRow(row) {
  const digits = digitsOf(row.metric);
  const good = judged(row);
  return el(
    "tr",
    {},
    el("th", {}, row.label),
    el("td", {}, withInterval(row.before, digits)),
    el("td", {}, withInterval(row.after, digits)),
    el("td", { class: good === null ? "" : good ? "right" : "wrong" }, withInterval(row.change, digits)),
    el("td", {}, number(row.ceiling, digits)),
    el("td", {}, row.change ? whole(row.change.n) : known([row.before, row.after].map((side) => side && whole(side.n)))),
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
      run.flips.length
        ? "Seats and decisions by the sealed answer before the talk and the one acted on. Shares are of a row."
        : "No seat gave an answer before the talk that could be read.",
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
    const logged = values.filter((value) => value !== null);
    return logged.length ? `${number(logged[0], digits)} → ${number(logged.at(-1), digits)}` : "–";
  };
  const line = ({ term, share, pay }) =>
    el("tr", {}, el("th", {}, term), el("td", {}, ends(share, 2)), el("td", {}, ends(pay, 2)));
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
      el("div", { class: "scroll" }, table("numbers", ["term", "share", "value before weight"], run.terms.map(line))),
    ),
    meanings(run.terms.filter(({ doc }) => doc).map(({ term, doc }) => [term, doc])),
  ];
}

/** Charts of the same lines, and their legend. */
const overUpdates = ({ charts, lines }, kind = "") => [
  lines.length > 1 && legend(lines),
  el(
    "div",
    { class: `charts ${kind}` },
    charts.map((spec) => chart(spec)),
  ),
];

function more(learning) {
  if (!learning.charts.length) return null;
  const details = el(
    "details",
    {},
    el("summary", {}, "The learner itself: KL, entropy, value loss"),
  );
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector(".charts")) {
      details.append(el("div", {}, overUpdates(learning)));
      drawCharts(details);
    }
  });
  return details;
}
