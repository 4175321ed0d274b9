// The sampled tokens of a turn, the less likely the darker. One of them is read out: the least likely first, then
// whichever is clicked, touched or reached by the arrow keys.

function tokens(turn) {
  const said = el("output", { class: "faint" });
  const marks = turn.tokens.map((text, i) =>
    el(
      "span",
      { class: "token", style: { "--doubt": Math.min(1, (turn.logprobs[i] ?? 0) / -3).toFixed(2) } },
      text.replaceAll("\n", "⏎\n"),
    ),
  );
  let chosen = turn.logprobs.reduce((least, value, i, all) => (value < all[least] ? i : least), 0);
  const choose = (i) => {
    marks[chosen].classList.remove("chosen");
    chosen = Math.min(marks.length - 1, Math.max(0, i));
    marks[chosen].classList.add("chosen");
    const logprob = turn.logprobs[chosen] ?? null;
    const likely = logprob === null ? "no log-probability" : `${number(logprob)} nats, p = ${number(Math.exp(logprob))}`;
    said.textContent = `token ${chosen + 1} of ${marks.length}: ${likely}`;
  };
  choose(chosen);
  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  return el(
    "div",
    {
      class: "sampled",
      tabindex: 0,
      role: "group",
      "aria-label": "tokens; arrows go from one to the next",
      onclick: (event) => event.target.matches(".token") && choose(marks.indexOf(event.target)),
      onkeydown: (event) => {
        if (!steps[event.key]) return;
        choose(chosen + steps[event.key]);
        event.preventDefault();
        event.stopPropagation(); // elsewhere they lead to another episode
      },
    },
    marks,
    said,
  );
}
