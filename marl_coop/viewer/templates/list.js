// All episodes as a table, of which only the rows in sight exist.

const ROW_PX = 34;
const BEYOND = 12; // rows that are drawn above and below those in sight

let lastQuery = {}; // of the list, for the way back and for the next episode
let cursor = null; // the row that keys move, and the one that was opened last
let redraw = () => {}; // the list in sight, after the cursor has moved

const listAddress = () => address("episodes", lastQuery);

/** Rows that a query leaves, in its order. */
function selected(query) {
  const words = (query.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) =>
    (!query.kind || row.kinds.includes(query.kind)) &&
    (!query.phase || row.phase === query.phase) &&
    (!query.team || row.team === query.team) &&
    (!query.family || row.family === query.family) &&
    (!query.run || row.run === Number(query.run)) &&
    (!query.success || String(row.success) === query.success) &&
    words.every((word) => `${labelOf(row)} ${row.task} ${row.update ?? ""}`.toLowerCase().includes(word));
  const rows = store.rows.filter(fits);
  const value = query.sort && columnNamed(query.sort)?.value;
  if (!value) return rows;
  const sign = query.down ? -1 : 1;
  const rank = (a, b) =>
    a === b ? 0 : a === null || a === undefined ? 1 : b === null || b === undefined ? -1 : a < b ? -sign : sign;
  return rows.toSorted((a, b) => rank(value(a), value(b)) || a.number - b.number);
}

const told = (row) => row.told.map((right) => (right === null ? "·" : right ? "✓" : "✗")).join(" ");

function termNames() {
  const names = new Map();
  for (const row of store.rows)
    for (const [name, value] of Object.entries(row.terms))
      names.set(name, Math.max(names.get(name) ?? 0, Math.abs(value)));
  return names;
}

function columns() {
  const terms = (store.terms ??= termNames());
  return [
    { name: "id", title: "episode", value: (row) => row.number, cell: (row) => labelOf(row), left: true },
    { name: "family", title: "family", value: (row) => row.family, cell: (row) => row.family, left: true },
    {
      name: "told",
      title: "told",
      about: "which seats were told what is right",
      value: told,
      cell: (row) => row.told.map((right) => verdict(right)),
    },
    {
      name: "utility",
      title: "result",
      about: "solved, and the team result U in [0, 1]",
      value: (row) => row.utility,
      cell: (row) => [verdict(row.success, row.success ? "solved" : "not solved"), ` ${number(row.utility)}`],
    },
    {
      name: "kinds",
      title: "what they did",
      value: (row) => row.kinds.join() || "~",
      cell: (row) => row.kinds.map(kindChip),
      left: true,
    },
    { name: "said", title: "talk", about: "message tokens", value: (row) => row.said, cell: (row) => whole(row.said) },
    {
      name: "written",
      title: "written",
      about: "all tokens that the seats wrote",
      value: (row) => row.written,
      cell: (row) => whole(row.written),
    },
    {
      name: "reward",
      title: "reward",
      about: "of all seats, weights applied",
      value: (row) => row.reward,
      cell: (row) => number(row.reward),
    },
    ...[...terms].map(([term, most]) => ({
      name: `term:${term}`,
      title: term.replaceAll("_", " "),
      about: "of all seats, weight applied",
      value: (row) => row.terms[term] ?? (row.reward === null ? null : 0),
      cell: (row) => (row.terms[term] ? signed(row.terms[term]) : row.reward === null ? "" : "0"),
      shade: (row) => (row.terms[term] ?? 0) / most,
    })),
  ];
}

const columnNamed = (name) => columns().find((column) => column.name === name);

function kindChip(kind) {
  const { name, meaning, good } = store.overview.kinds[kind];
  return el("span", { class: `kind ${good ? "good" : "bad"}`, title: meaning }, name);
}

async function showList(main, _, params) {
  document.title = "Episodes";
  const query = (lastQuery = Object.fromEntries(params));
  const rows = selected(query);
  const change = (changes) => (location.hash = address("episodes", { ...query, ...changes }));
  const body = el("tbody");
  const shownColumns = columns();
  const heads = shownColumns.map((column) => headCell(column, query, change));
  const table = el(
    "table",
    { class: "episodes", "aria-rowcount": rows.length + 1 },
    el("thead", {}, el("tr", {}, heads)),
    body,
  );
  const scroller = el("div", { class: "scroll list", tabindex: 0 }, table);
  main.replaceChildren(
    filters(query, rows, change),
    rows.length ? scroller : el("p", { class: "empty" }, "No episode is like that. ", el("a", { href: address("episodes") }, "Show all.")),
  );
  const draw = () => drawRows(scroller, body, rows, shownColumns);
  redraw = () => {
    const at = rows.indexOf(cursor) * ROW_PX;
    const room = scroller.clientHeight - 3 * ROW_PX; // below the head
    if (at < scroller.scrollTop || at > scroller.scrollTop + room) scroller.scrollTop = Math.max(0, at - room / 2);
    draw();
  };
  scroller.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(draw).observe(scroller);
  scroller.focus({ preventScroll: true, focusVisible: false });
  redraw();
}

function headCell(column, query, change) {
  const sorted = query.sort === column.name;
  const first = column.left ? "" : "1"; // numbers begin with the largest
  const next = !sorted ? first : (query.down ?? "") === first ? (first ? "" : "1") : null;
  return el(
    "th",
    {
      class: column.left ? "left" : "",
      title: column.about,
      "aria-sort": sorted ? (query.down ? "descending" : "ascending") : null,
    },
    el(
      "button",
      { onclick: () => change(next === null ? { sort: "", down: "" } : { sort: column.name, down: next }) },
      column.title,
      sorted ? (query.down ? " ↓" : " ↑") : "",
    ),
  );
}

function drawRows(scroller, body, rows, shownColumns) {
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW_PX) - BEYOND);
  const last = Math.min(rows.length, first + Math.ceil(scroller.clientHeight / ROW_PX) + 2 * BEYOND);
  const spacer = (count) =>
    el("tr", { class: "spacer", style: { height: `${count * ROW_PX}px` }, "aria-hidden": true });
  const cells = (row) =>
    shownColumns.map((column, i) => {
      const shade = column.shade?.(row);
      const style = shade ? { "--shade": Math.abs(shade).toFixed(2) } : {};
      const content = i === 0 ? el("a", { href: address(`episode/${row.key}`) }, column.cell(row)) : column.cell(row);
      return el(
        "td",
        { class: [column.left && "left", shade && (shade > 0 ? "plus" : "minus")].filter(Boolean).join(" "), style },
        content,
      );
    });
  const drawn = rows
    .slice(first, last)
    .map((row, i) =>
      el(
        "tr",
        {
          "aria-rowindex": first + i + 2,
          class: row === cursor ? "cursor" : null,
          onclick: (click) => click.target.closest("a") || (location.hash = address(`episode/${row.key}`)),
        },
        cells(row),
      ),
    );
  body.replaceChildren(spacer(first), ...drawn, spacer(rows.length - last));
}

function filters(query, rows, change) {
  const counts = Object.fromEntries(Object.keys(store.overview.kinds).map((kind) => [kind, 0]));
  for (const row of selected({ ...query, kind: "" })) for (const kind of row.kinds) counts[kind] += 1;
  const chips = Object.entries(store.overview.kinds)
    .filter(([kind]) => counts[kind] || query.kind === kind)
    .map(([kind, { name, meaning }]) =>
      el(
        "button",
        {
          class: "chip",
          "aria-pressed": String(query.kind === kind),
          title: meaning,
          onclick: () => change({ kind: query.kind === kind ? "" : kind }),
        },
        name,
        el("small", {}, ` ${whole(counts[kind])}`),
      ),
    );
  const dearest = query.sort === "said" && query.down;
  chips.push(
    el(
      "button",
      {
        class: "chip",
        "aria-pressed": String(Boolean(dearest)),
        onclick: () => change(dearest ? { sort: "", down: "" } : { sort: "said", down: 1 }),
      },
      "most expensive first",
    ),
  );
  const choice = (name, label, options) =>
    el(
      "select",
      { "aria-label": label, onchange: (event) => change({ [name]: event.target.value }) },
      [["", label], ...options].map(([value, text]) =>
        el("option", { value, selected: (query[name] ?? "") === String(value) }, text),
      ),
    );
  const valuesOf = (name) => [...new Set(store.rows.map((row) => row[name]).filter((value) => value !== null))];
  const every = (name, label, values) =>
    choice(
      name,
      label,
      values.map((value) => [value, value]),
    );
  const teams = valuesOf("team");
  const search = el("input", {
    type: "search",
    id: "search",
    placeholder: "search",
    value: query.q,
    "aria-label": "search by episode and task",
    onchange: (event) => change({ q: event.target.value }),
    oninput: (event) => event.target.value || change({ q: "" }), // its cross says no more than that
  });
  return el(
    "div",
    { class: "filters" },
    el("div", { class: "chips" }, chips),
    el(
      "div",
      { class: "choices" },
      several() &&
        choice(
          "run",
          "all runs",
          store.overview.runs.map((_, i) => [i, runName(i)]),
        ),
      every("phase", teams.length ? "all conditions" : "all phases", valuesOf("phase")),
      teams.length > 0 && every("team", "all teams", teams),
      every("family", "all families", valuesOf("family").sort()),
      choice("success", "solved or not", [
        ["true", "solved"],
        ["false", "not solved"],
      ]),
      search,
      el("span", { class: "faint" }, `${whole(rows.length)} of ${whole(store.rows.length)}`),
    ),
  );
}

function searchEpisodes() {
  if (place().view !== "episodes") location.hash = listAddress();
  setTimeout(() => $("search")?.focus(), 50);
}

/** Move the cursor by some rows, at first to the top. */
function moveCursor(by) {
  const rows = selected(lastQuery);
  const at = rows.indexOf(cursor);
  cursor = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by))] ?? null;
  redraw();
}

const listKeys = {
  j: () => moveCursor(1),
  k: () => moveCursor(-1),
  ArrowDown: () => moveCursor(1),
  ArrowUp: () => moveCursor(-1),
  PageDown: () => moveCursor(15),
  PageUp: () => moveCursor(-15),
  Enter: () => go(cursor),
};
