// The page's data, unpacked when it is first needed.

async function unpack(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const store = { overview: null, rows: [], offsets: [], chunks: new Map() };

async function load() {
  const [overview, rows] = await Promise.all([unpack("overview"), unpack("rows")]);
  store.overview = overview;
  let number = 0;
  rows.forEach((episodes, run) => {
    store.offsets.push(number);
    for (const row of episodes) store.rows.push(Object.assign(row, { run, number: number++, key: `${run}/${row.id}` }));
  });
  store.byKey = new Map(store.rows.map((row) => [row.key, row]));
  store.byTask = Map.groupBy
    ? Map.groupBy(store.rows, (row) => row.task)
    : store.rows.reduce((map, row) => map.set(row.task, [...(map.get(row.task) ?? []), row]), new Map());
}

/** All that is shown of an episode. */
async function detailOf(row) {
  const chunk = Math.floor(row.number / store.overview.chunk);
  if (!store.chunks.has(chunk)) store.chunks.set(chunk, unpack(`details-${chunk}`));
  return (await store.chunks.get(chunk))[row.number % store.overview.chunk];
}

const runName = (run) => store.overview.runs[run].label;
const several = () => store.overview.runs.length > 1;
const labelOf = (row) => (several() ? `${runName(row.run)} ` : "") + row.id;
