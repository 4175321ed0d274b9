// Where the reader is, by the address after "#": "", "episodes?kind=held", "episode/0/after:3?beside=0/before:3".

const KEYS = [
  ["o", "overview"],
  ["e", "episodes"],
  ["/", "search the episodes"],
  ["j  k", "next and previous episode, in the list and from one to the other"],
  ["Enter", "open the episode"],
  ["b", "beside it the same task elsewhere, such as before training"],
  ["r", "all that was told and written"],
  ["t", "tokens by log-probability"],
  ["Esc", "back to the list"],
  ["d", "dark or light"],
  ["?", "these keys"],
];

function place() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [view = "", ...rest] = path.split("/");
  return { view, key: decoded(rest.join("/")), query: new URLSearchParams(query) };
}

/** A key as `address` wrote it, or as a person typed it. */
function decoded(key) {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}

const address = (path, query = {}) => {
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return `#${encodeURI(path).replaceAll("?", "%3F")}${set.length ? `?${new URLSearchParams(set)}` : ""}`;
};

function bar(view) {
  const link = (to, text, name) => el("a", { href: address(to), "aria-current": view === name && "page" }, text);
  $("bar").replaceChildren(
    el("strong", { class: "brand" }, "marl-coop"),
    el("nav", {}, link("", "Overview", ""), link("episodes", `Episodes ${whole(store.rows.length)}`, "episodes")),
    el("span", { class: "grow" }),
    el("button", { onclick: switchTheme, title: "dark or light (d)", "aria-label": "dark or light" }, "◐"),
    el("button", { onclick: showHelp, title: "keys (?)", "aria-label": "keys" }, "?"),
  );
}

const views = { "": showOverview, episodes: showList, episode: showEpisode };

async function show() {
  const { view, key, query } = place();
  const draw = views[view] ?? showOverview;
  bar(view === "episode" ? "episodes" : view);
  await draw($("main"), key, query);
}

const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark";

function setTheme(name) {
  document.documentElement.style.colorScheme = name;
  document.documentElement.dataset.theme = name;
}

function switchTheme() {
  setTheme(dark() ? "light" : "dark");
  try {
    localStorage.setItem("marl-coop-theme", dark() ? "dark" : "light");
  } catch {} // a page that is opened from the disk may have no storage
  if (place().view === "") show();
}

function firstTheme() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("marl-coop-theme");
  } catch {}
  setTheme(chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
}

function showHelp() {
  const rows = KEYS.map(([key, text]) => el("tr", {}, el("th", {}, el("kbd", {}, key)), el("td", {}, text)));
  const kinds = Object.values(store.overview.kinds).map(({ name, meaning }) => [name, meaning]);
  const heads = columns().filter((column) => column.about && !column.shade);
  $("help").replaceChildren(
    el("h2", {}, "Keys"),
    el("table", {}, rows),
    meanings(kinds, "What they did"),
    meanings(
      [...heads.map(({ title, about }) => [title, about]), ["each term", "of all seats, weight applied"]],
      "Columns of the list",
    ),
    el("form", { method: "dialog" }, el("button", {}, "close")),
  );
  $("help").showModal();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (
    event.target.matches("input, select, textarea") ||
    (event.key === "Enter" && event.target.matches("a, button, summary"))
  ) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const common = {
    o: () => (location.hash = address("")),
    e: () => (location.hash = listAddress()),
    "/": () => searchEpisodes(),
    d: switchTheme,
    "?": showHelp,
  };
  const ofView = { episode: episodeKeys, episodes: listKeys }[place().view] ?? {};
  const action = common[event.key] ?? ofView[event.key];
  if (action && !$("help").open) {
    event.preventDefault();
    action();
  }
});

addEventListener("hashchange", show);
firstTheme();
load().then(show, (error) => {
  $("main").replaceChildren(
    el("p", { class: "notice" }, `This page cannot be drawn by this browser: ${error.message}`),
  );
  throw error;
});
