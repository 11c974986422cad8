"use strict";
// Shows the state that /events sends, posts what the viewer changes, and reconnects by itself. Of several sources each
// has a tile; the controls act on the one that is chosen, or on all.
const by = (id) => document.getElementById(id);
const latencies = {}; // by tile: [median, 95th percentile] in ms, twice a second, for two minutes
const tiles = []; // the elements of each tile
let state = null, waiting = 0, events = null, refused = "", receiving = null, chosen = null;

function send(name, value) {
  fetch("command", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, value, tile: chosen }),
  }).then(async (answer) => { refused = answer.ok ? "" : "refused: " + await answer.text(); },
          () => say("not connected", true));
}

function say(text, bad) {
  const status = by("status");
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle("bad", Boolean(bad));
}

function fill(select, names, chosen) {
  if (select.dataset.names !== names.join()) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    select.dataset.names = names.join();
  }
  if (document.activeElement !== select) select.value = chosen;
}

function numbers(entries) {
  by("numbers").replaceChildren(...entries.map(([name, value]) => {
    const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    row.append(term, text);
    return row;
  }));
}

function remember(key, latency) {
  latencies[key] = latencies[key] || [];
  latencies[key].push(latency);
  if (latencies[key].length > 240) latencies[key].shift();
}

function plot(latencies) {
  const canvas = by("plot"), draw = canvas.getContext("2d"), { width, height } = canvas;
  const top = Math.max(100, ...latencies.map((latency) => latency[1] || 0));
  draw.clearRect(0, 0, width, height);
  draw.font = "12px system-ui";
  draw.fillStyle = draw.strokeStyle = getComputedStyle(document.body).color;
  draw.fillText(`latency, up to ${Math.round(top)} ms`, 6, 14);
  [[1, 0.35], [0, 1]].forEach(([which, alpha]) => {
    draw.globalAlpha = alpha;
    draw.beginPath();
    latencies.forEach((latency, index) => {
      draw.lineTo(width * index / 239, height - 2 - (height - 22) * (latency[which] || 0) / top);
    });
    draw.stroke();
  });
  draw.globalAlpha = 1;
}

function links(shown, query) {
  return shown.recordings.map(([number, name]) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = "recordings/" + number + query;
    link.download = name;
    link.textContent = "Download " + name;
    item.append(link);
    return item;
  });
}

function controls(shown, list, entries, latency) {
  fill(by("layout"), shown.layouts, shown.layout);
  fill(by("colormap"), shown.colormaps, shown.colormap);
  by("model-label").hidden = shown.models.length < 2;
  fill(by("model"), shown.models, shown.model);
  if (document.activeElement !== by("range")) by("range").value = shown.range;
  if (document.activeElement !== by("alpha")) by("alpha").value = shown.alpha;
  by("alpha").disabled = shown.layout !== "overlay";
  by("freeze").setAttribute("aria-pressed", shown.frozen);
  by("record").setAttribute("aria-pressed", shown.recording);
  by("record").textContent = shown.recording ? "Stop recording" : "Record";
  if (by("recordings").children.length !== list.length) by("recordings").replaceChildren(...list);
  numbers(entries);
  plot(latency);
}

function show(next) {
  state = next;
  if (state.tiles) return showTiles();
  if (state.ended) return say("stopped: " + state.ended, true);
  say(refused || state.waiting || (state.frozen ? "frozen" : "live"), Boolean(refused || state.waiting));
  by("caption").textContent = state.message;
  remember(0, state.latencies_ms);
  controls(state, links(state, ""), state.numbers, latencies[0]);
}

// What the controls show: the chosen source, or the first that still runs.
function shownTile() {
  return state.tiles[chosen] || state.tiles.find((tile) => !tile.ended) || state.tiles[0];
}

function summary(tile) {
  const found = Object.fromEntries(tile.numbers);
  return tile.ended ? "ended" : [found.shown, found["latency, 95 % below"]].filter(Boolean).join(", ") || "waiting";
}

function showTiles() {
  if (!tiles.length) state.tiles.forEach(addTile);
  const running = state.tiles.filter((tile) => !tile.ended && !tile.waiting).length, isPart = running < tiles.length;
  if (state.ended) say("stopped: " + state.ended, true);
  else say(refused || `${running} of ${tiles.length} sources live`, Boolean(refused) || isPart);
  state.tiles.forEach((tile, number) => {
    const { figure, button, status } = tiles[number];
    const text = tile.ended || tile.waiting || tile.message || (tile.frozen ? "frozen" : "live");
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("bad", Boolean(tile.ended || tile.waiting));
    figure.classList.toggle("gone", Boolean(tile.ended));
    button.setAttribute("aria-pressed", chosen === number);
    remember(number, tile.ended ? [] : tile.latencies_ms);
  });
  for (const [id, file] of [["save-picture", "snapshot.png"], ["save-depth", "snapshot.npy"]]) {
    by(id).hidden = chosen === null;
    by(id).href = file + "?tile=" + chosen;
  }
  const list = state.tiles.flatMap((tile, number) => links(tile, "?tile=" + number));
  const every = Object.values(latencies), isOne = chosen !== null;
  const largest = (at, which) => Math.max(...every.map((one) => one[at][which] || 0));
  const worst = every[0].map((_, at) => [largest(at, 0), largest(at, 1)]);
  const all = state.tiles.map((tile) => [tile.name, summary(tile)]);
  controls(shownTile(), list, isOne ? shownTile().numbers : all, isOne ? latencies[chosen] : worst);
}

function addTile(tile, number) {
  const [figure, button, caption, name, status] = ["figure", "button", "figcaption", "strong", "span"].map(
    (tag) => document.createElement(tag));
  const image = new Image();
  image.alt = `${tile.name}: live image and its depth; near is bright`;
  button.type = "button";
  button.append(image);
  name.textContent = tile.name;
  status.setAttribute("role", "status");
  caption.append(name, " ", status);
  figure.append(button, caption);
  button.addEventListener("click", () => choose(chosen === number ? null : number));
  by("tiles").append(figure);
  tiles.push({ figure, button, image, status });
  by("tile-label").hidden = false;
  if (number === 0) by("tile").append(new Option("all", ""));
  by("tile").append(new Option(tile.name, number));
}

function choose(number) {
  chosen = number;
  by("tile").value = number === null ? "" : number;
  show(state);
}

// Reads the images of all tiles from one answer, because browsers open at most six connections to a host.
async function receive(signal) {
  const answer = await fetch("pictures", { signal });
  if (!answer.ok) throw new Error(await answer.text());
  const reader = answer.body.getReader(), text = new TextDecoder("latin1");
  let data = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(data.length + value.length);
    joined.set(data);
    joined.set(value, data.length);
    data = joined;
    for (;;) {
      const head = text.decode(data.subarray(0, 1000)), start = head.indexOf("\r\n\r\n") + 4;
      if (start < 4) break;
      const [length, number] = [/content-length: (\d+)/i, /x-tile: (\d+)/i].map((field) => Number(field.exec(head)[1]));
      if (data.length < start + length) break;
      display(number, data.slice(start, start + length));
      data = data.slice(start + length);
    }
  }
}

function display(number, jpeg) {
  if (!tiles[number]) return; // the first state has not come yet
  const { image } = tiles[number], before = image.src;
  image.src = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
  if (before) URL.revokeObjectURL(before);
}

function watchTiles() {
  if (receiving) receiving.abort();
  const own = receiving = new AbortController();
  receive(own.signal).then(() => "the connection was lost", (error) => error.message).then((reason) => {
    if (own !== receiving || (state && state.ended)) return;
    say("no images: " + reason + "; trying again", true);
    setTimeout(() => own === receiving && watchTiles(), 3000);
  });
}

function watch() {
  if (by("tiles")) watchTiles();
  else by("picture").src = "pictures?" + Date.now();
}

function listen() {
  if (document.hidden) return; // browsers open at most six connections to a host, and a page takes two
  if (events) events.close();
  events = new EventSource("events");
  events.onmessage = (event) => {
    if (waiting) { // reconnected: the old image stream is dead
      waiting = 0;
      watch();
    }
    show(JSON.parse(event.data));
    if (state.ended) { events.close(); retry(); }
  };
  events.onerror = () => { events.close(); retry(); };
}

function retry() {
  waiting += 1;
  if (!state || !state.ended) say("not connected, trying again", true);
  setTimeout(listen, Math.min(10000, 1000 * waiting));
}

if (by("picture")) by("picture").addEventListener("error", () => {
  if (document.hidden || (state && state.ended)) return;
  say("no image: too many viewers, or the connection was lost; trying again", true);
  setTimeout(watch, 3000);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    if (events) events.close();
    events = null;
    if (receiving) receiving.abort();
    receiving = null;
    if (by("picture")) by("picture").removeAttribute("src");
  } else if (!(state && state.ended)) {
    watch();
    listen();
  }
});
for (const id of ["layout", "colormap", "model"]) by(id).addEventListener("change", (event) => send(id, event.target.value));
by("alpha").addEventListener("input", (event) => send("alpha", Number(event.target.value)));
by("range").addEventListener("change", (event) => send("range", event.target.value));
const current = () => (state && state.tiles ? shownTile() : state) || {};
by("freeze").addEventListener("click", () => send("freeze", !current().frozen));
by("record").addEventListener("click", () => send("record", !current().recording));
by("tile").addEventListener("change", (event) => choose(event.target.value === "" ? null : Number(event.target.value)));
by("controls").addEventListener("submit", (event) => event.preventDefault());
if (by("tiles")) watch();
listen();
