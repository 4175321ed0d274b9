// What the seats made: code, the merge as a diff, and the hidden tests.

function made(data, places) {
  const works = data.merge ? [] : data.turns.filter((turn) => turn.work.length);
  const { parts } = data.tests;
  if (!works.length && !data.merge && !Object.keys(parts).length) return null;
  return el(
    "section",
    { class: "made" },
    el("h2", {}, data.merge ? "The merge" : "The code"),
    data.merge && merge(data.merge, places),
    works.map((turn) =>
      el("div", { class: `work ${seatClass(places.get(turn.agent))}` }, el("b", {}, turn.agent), code(turn.work)),
    ),
    Object.keys(parts).length > 0 && tests(parts, places),
    data.forecasts.length > 0 &&
      el(
        "details",
        {},
        el("summary", {}, "What a merge would have met after each round"),
        el(
          "ul",
          {},
          data.forecasts.map(({ round, files, symbols }) =>
            el("li", {}, `round ${round}: ${[...files, ...symbols].join(", ") || "nothing"}`),
          ),
        ),
      ),
  );
}

function tests(parts, places) {
  const of = (seat) => el("th", { class: `seat ${seatClass(places.get(seat))}` }, seat);
  const marks = (passed) => el("td", {}, passed.map((right) => verdict(right)));
  const suites = Object.entries(parts);
  const each = suites.flatMap(([seat, { alone, merged, names }]) =>
    names.map((name, i) => el("tr", {}, of(seat), marks([alone[i]]), marks([merged[i]]), el("td", {}, name))),
  );
  const heads = ["hidden tests of", "on its part alone", "after the merge"];
  return [
    table(
      "tests",
      heads,
      suites.map(([seat, { alone, merged }]) => el("tr", {}, of(seat), marks(alone), marks(merged))),
    ),
    each.length > 0 &&
      el(
        "details",
        {},
        el("summary", {}, "Each test"),
        el("div", { class: "scroll" }, table("tests", [...heads, "test"], each)),
      ),
  ];
}

function merge({ conflict, policy, worth, sides }, places) {
  const met = el(
    "p",
    {},
    conflict ? el("span", { class: "kind bad" }, "conflict") : el("span", { class: "kind good" }, "no conflict"),
    el("span", { class: "faint" }, ` ${policy}`),
    !sides.merged && el("span", { class: "faint" }, "; there is no merged code, so what each branch changes:"),
  );
  const branch = (side) => `${side}'s branch, alone worth ${number(worth[side])}`;
  const changes = (side) =>
    sides[side].length
      ? sides[side].map((file) => fileDiff(file, places))
      : [el("p", { class: "faint" }, "nothing changed")];
  if (!sides.merged) {
    return [met, ...Object.keys(sides).map((side) => el("div", {}, el("h3", {}, branch(side)), changes(side)))];
  }
  const box = el("div");
  const buttons = Object.keys(sides).map((side) =>
    el(
      "button",
      { class: "chip", onclick: () => choose(side) },
      side === "merged" ? side : branch(side),
    ),
  );
  const choose = (side) => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(Object.keys(sides)[i] === side)));
    box.replaceChildren(...changes(side));
  };
  choose("merged");
  return [met, el("div", { class: "chips" }, buttons), box];
}

function fileDiff({ path, lines }, places) {
  const seats = [...new Set(lines.flatMap(({ by }) => by))].sort();
  const rows = lines.map(({ sign, spans, by }) =>
    el(
      "tr",
      { class: { "+": "added", "-": "removed", "@": "skipped" }[sign] ?? "" },
      el(
        "td",
        { class: `by ${by.length === 1 ? seatClass(places.get(by[0])) : ""}` },
        sign === "@" ? "" : sign,
      ),
      seats.length > 1 && el("td", { class: "faint whose" }, by.join(" ")),
      el("td", {}, line(spans)),
    ),
  );
  return el(
    "details",
    { open: true, class: "file" },
    el("summary", {}, path, seats.length > 0 && el("span", { class: "faint" }, ` ${seats.join(", ")}`)),
    el("div", { class: "scroll" }, el("table", { class: "code diff" }, rows)),
  );
}
