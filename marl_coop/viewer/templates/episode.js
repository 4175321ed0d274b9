// One episode: who was told what, what they said and were paid for, and what came of it; beside another one if asked.

const shown = { raw: false, tokens: false };

async function showEpisode(main, key, params) {
  const row = store.byKey.get(key);
  if (!row) return main.replaceChildren(el("p", { class: "empty" }, `There is no episode ${key} in this file.`));
  document.title = labelOf(row);
  cursor = row;
  const data = await detailOf(row);
  const other = await beside(data, params.get("beside"));
  if (place().key !== key) return; // another one was asked for meanwhile
  const panels = [panel(data, other && labelOf(row), row), other && panel(other.data, other.label, other.row)];
  main.replaceChildren(
    episodeHead(row, data, params.get("beside")),
    el("div", { class: other ? "two panels" : "panels" }, panels),
  );
  main.classList.toggle("raw", shown.raw);
  main.classList.toggle("tokens", shown.tokens);
  scrollTo(0, 0);
}

/** What can be put beside an episode: the same task elsewhere, and replays in which nobody hears a seat. */
function counterparts(row, data) {
  const same = store.byTask.get(row.task).filter((one) => one !== row);
  return [
    ...same.map((one) => [one.key, labelOf(one)]),
    ...Object.keys(data.muted).map((seat) => [`muted/${seat}`, `had nobody heard ${seat}`]),
  ];
}

async function beside(data, key) {
  if (!key) return null;
  if (key.startsWith("muted/")) {
    const seat = key.slice("muted/".length);
    return data.muted[seat] ? { data: data.muted[seat], label: `had nobody heard ${seat}`, row: null } : null;
  }
  const row = store.byKey.get(key);
  return row ? { data: await detailOf(row), label: labelOf(row), row } : null;
}

function neighbours(row) {
  const list = selected(lastQuery);
  const at = list.indexOf(row);
  return at < 0 ? [null, list[0] ?? null, at, list.length] : [list[at - 1], list[at + 1], at, list.length];
}

function episodeHead(row, data, besideKey) {
  const [previous, next, at, count] = neighbours(row);
  const step = (to, text, name) =>
    el("a", { class: "step", href: to ? address(`episode/${to.key}`) : null, title: name, "aria-label": name }, text);
  const options = counterparts(row, data);
  return el(
    "header",
    { class: `episode ${besideKey ? "broad" : ""}` },
    el(
      "div",
      { class: "steps" },
      el("a", { href: listAddress() }, "← list"),
      step(previous, "‹", "previous episode (k)"),
      el("span", { class: "faint" }, at < 0 ? "" : `${whole(at + 1)} of ${whole(count)}`),
      step(next, "›", "next episode (j)"),
      el("span", { class: "grow" }),
      options.length > 0 &&
        el(
          "select",
          {
            "aria-label": "beside it",
            onchange: (event) => (location.hash = address(`episode/${row.key}`, { beside: event.target.value })),
          },
          [["", "beside it …"], ...options].map(([value, text]) =>
            el("option", { value, selected: value === (besideKey ?? "") }, text),
          ),
        ),
      toggle("raw", "all text", "all that was told and written (r)"),
      data.turns.some((turn) => turn.tokens.length) && toggle("tokens", "tokens", "tokens by log-probability (t)"),
    ),
    el("h1", {}, labelOf(row), el("span", { class: "faint" }, ` ${row.task}`)),
    el("div", { class: "chips" }, row.kinds.map(kindChip)),
  );
}

function toggle(name, text, title) {
  const press = () => {
    shown[name] = !shown[name];
    $("main").classList.toggle(name, shown[name]);
    button.setAttribute("aria-pressed", String(shown[name]));
  };
  const button = el(
    "button",
    { class: "chip", id: `toggle-${name}`, title, "aria-pressed": String(shown[name]), onclick: press },
    text,
  );
  return button;
}

function panel(data, label, row) {
  const places = new Map(data.seats.map(({ seat }, i) => [seat, i]));
  return el(
    "article",
    { class: "panel" },
    label && el("h2", { class: "label" }, label),
    result(data),
    decisions(data),
    lanes(data, places),
    made(data, places),
    data.memory.length > 0 &&
      el(
        "details",
        {},
        el("summary", {}, `Shared memory, ${data.memory.length} entries`),
        el(
          "pre",
          {},
          data.memory.map((entry) => `${entry.line}\n`),
        ),
      ),
  );
}

function result(data) {
  const { tests } = data;
  const facts = [
    el("span", { class: "big" }, verdict(data.success, "solved or not"), data.success ? " solved" : " not solved"),
    `result U ${number(data.utility)}`,
    tests.total > 0 && `${tests.passed} of ${tests.total} tests`,
    data.solo_utility !== null && `alone ${number(data.solo_utility)}`,
    data.stop !== "finished" && data.stop.replaceAll("_", " "),
    data.detail,
  ];
  return el(
    "p",
    { class: "result" },
    facts.filter(Boolean).map((fact) => el("span", {}, fact)),
  );
}

function decisions(data) {
  if (!data.decisions.length) return null;
  const many = data.decisions.length > 3;
  const answers = el(
    "div",
    { class: "scroll" },
    table(
      "decisions",
      ["decision", "seat", "was told", "before the talk", "after", "acted on", ""],
      data.decisions.map((decision) => decisionRows(decision, data.seats)),
    ),
  );
  const title = `${data.decisions.length} decisions, sealed answers before and after`;
  const told = [answers, options(data.decisions)];
  return many ? el("details", {}, el("summary", {}, title), told) : told;
}

/** The options of each decision, once where several have the same. */
function options(decisions) {
  const of = new Map();
  for (const { id, options, more, blends } of decisions) {
    const names = options.map((option) => (blends.includes(option) ? `${option} (blend)` : option)).join(", ");
    const text = names + (more ? ` and ${more} more` : "");
    of.set(text, [...(of.get(text) ?? []), id]);
  }
  return [...of].map(([names, ids]) => el("p", { class: "note" }, `options of ${ids.join(", ")}: ${names}`));
}

/** A confidence as text; none where it was not asked for. */
const percent = (confidence) => (confidence === null ? "" : `${Math.round(100 * confidence)} %`);

function decisionRows(decision, seats) {
  const stance = (held) =>
    held
      ? [
          verdict(held.right),
          ` ${held.option} `,
          el("span", { class: "faint" }, percent(held.confidence)),
        ]
      : "–";
  return decision.seats.map((seat, i) =>
    el(
      "tr",
      { class: i === 0 ? "first" : "" },
      i === 0 &&
        el(
          "th",
          { rowspan: decision.seats.length },
          decision.id,
          decision.best !== null && el("div", { class: "faint" }, `right: ${decision.best}`),
          decision.truth !== null && el("div", { class: "faint" }, `truth: ${decision.truth}`),
        ),
      el("th", { class: `seat ${seatClass(i)}` }, seats[i].seat),
      el(
        "td",
        {},
        seat.told === null
          ? "–"
          : [verdict(seat.told_right), ` ${seat.told} `, el("span", { class: "faint" }, seat.source)],
      ),
      el("td", {}, stance(seat.before)),
      el("td", {}, stance(seat.after)),
      el("td", {}, seat.acted ? [verdict(seat.acted_right), ` ${seat.acted}`] : "–"),
      el("td", {}, seat.kind && kindChip(seat.kind)),
    ),
  );
}

function lanes(data, places) {
  const seats = data.seats.map((seat, i) =>
    el(
      "div",
      { class: `lane-head ${seatClass(i)}`, style: { "--column": i + 1 } },
      el("b", {}, seat.seat, " "),
      seat.player && seat.player !== seat.seat && el("span", { class: "faint" }, `${seat.player} `),
      seat.reward !== null &&
        el("span", { class: "pay" }, `${data.paid ? "paid" : "would be paid"} ${signed(seat.reward)}`),
      el("p", { class: "brief" }, seat.brief),
    ),
  );
  const turns = data.turns.map((turn) => turnCard(turn, places.get(turn.agent)));
  return el("div", { class: "lanes", style: { "--seats": data.seats.length } }, seats, turns);
}

function turnCard(turn, place) {
  const heard = turn.message && turn.message !== turn.reply.trim();
  return el(
    "div",
    {
      class: `turn ${seatClass(place)} ${turn.phase === "work" || turn.work.length ? "coded" : ""}`,
      style: { "--column": place + 1, "--round": turn.round + 2 },
    },
    el(
      "header",
      {},
      el("span", { class: "who" }, turn.agent),
      el("span", {}, store.overview.phases[turn.phase]),
      turn.said > 0 &&
        el(
          "span",
          { class: "price" },
          `${counted(turn.said, "token")} said`,
        ),
      turn.memory > 0 && el("span", { class: "price" }, `${turn.memory} of memory`),
      turn.error && el("span", { class: "kind bad" }, `cannot be read: ${turn.error.replaceAll("_", " ")}`),
      turn.truncated && el("span", { class: "kind bad" }, "cut off"),
    ),
    el("div", { class: "heard" }, turn.heard),
    el("div", { class: "reply" }, turn.reply || el("span", { class: "faint" }, "nothing")),
    turn.tokens.length > 0 && tokens(turn),
    heard && el("div", { class: "message" }, el("span", { class: "faint" }, "partners see: "), turn.message),
    turn.stances.length > 0 &&
      turn.stances.length < 4 &&
      el(
        "div",
        { class: "chips" },
        turn.stances.map((held) =>
          el(
            "span",
            { class: "stance" },
            verdict(held.right),
            ` ${[held.option, percent(held.confidence)].filter(Boolean).join(" · ")}`,
          ),
        ),
      ),
    turn.acts.length > 0 &&
      el(
        "div",
        { class: "chips" },
        turn.acts.map((act) =>
          el("span", { class: "act" }, [act.kind, act.decision, act.option].filter(Boolean).join(" ")),
        ),
      ),
    turn.reads.length > 0 && el("div", { class: "faint" }, `reads ${turn.reads.map((id) => `#${id}`).join(", ")}`),
    turn.refused.length > 0 &&
      el("div", { class: "faint" }, `may not write before it reads ${turn.refused.map((id) => `#${id}`).join(", ")}`),
    credit(turn),
  );
}

function credit(turn) {
  const paid = Object.entries(turn.terms).map(([term, value]) =>
    el(
      "span",
      { class: `term ${value > 0 ? "plus" : "minus"}` },
      `${term.replaceAll("_", " ")} ${signed(value, Math.abs(value) < 0.1 ? 3 : 2)}`,
    ),
  );
  const learned =
    turn.advantage !== null &&
    el(
      "span",
      { class: "learned" },
      `value ${number(turn.value)} · return ${number(turn.target)} · advantage ${signed(turn.advantage)}`,
    );
  return paid.length || learned ? el("footer", {}, paid, learned) : null;
}

const go = (row) => row && (location.hash = address(`episode/${row.key}`));
const current = () => store.byKey.get(place().key);

const episodeKeys = {
  j: () => go(neighbours(current())[1]),
  k: () => go(neighbours(current())[0]),
  ArrowRight: () => go(neighbours(current())[1]),
  ArrowLeft: () => go(neighbours(current())[0]),
  Escape: () => (location.hash = listAddress()),
  r: () => $("toggle-raw")?.click(),
  t: () => $("toggle-tokens")?.click(),
  b: async () => {
    const row = current();
    if (!row) return;
    const options = [null, ...counterparts(row, await detailOf(row)).map(([key]) => key)];
    const at = options.indexOf(place().query.get("beside"));
    location.hash = address(`episode/${row.key}`, { beside: options[(at + 1) % options.length] });
  },
};
