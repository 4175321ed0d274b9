// Charts, drawn by Vega-Lite in the colours of the page.

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

/** What the lines of some charts are called, each beside a piece of it. */
function legend(lines) {
  const piece = ({ colour, dashes: [dash, gap] }) => {
    const [ink, to] = [`var(--line-${colour})`, `${dash + gap}px`];
    const drawn = `repeating-linear-gradient(to right, ${ink} 0 ${dash}px, transparent ${dash}px ${to})`;
    return el("span", { class: "piece", style: { background: drawn } });
  };
  return el(
    "ul",
    { class: "legend" },
    lines.map((line) => el("li", {}, piece(line), line.name)),
  );
}

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
  const colours = PALETTE[dark() ? "dark" : "light"];
  colours.forEach((colour, place) => document.documentElement.style.setProperty(`--line-${place}`, colour));
  const config = {
    range: { category: colours },
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
