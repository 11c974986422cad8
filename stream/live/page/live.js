"use strict";
// Shows the state that /events sends, posts what the viewer changes, and reconnects by itself.
const by = (id) => document.getElementById(id);
const latencies = []; // [median, 95th percentile] in ms, twice a second, for two minutes
let state = null, waiting = 0, events = null;

function send(name, value) {
  fetch("command", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, value }),
  }).then((answer) => { if (!answer.ok) say("refused: " + answer.status, true); },
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

function plot() {
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

function show(next) {
  state = next;
  if (state.ended) return say("stopped: " + state.ended, true);
  say(state.waiting || (state.frozen ? "frozen" : "live"), Boolean(state.waiting));
  fill(by("layout"), state.layouts, state.layout);
  fill(by("colormap"), state.colormaps, state.colormap);
  by("model-label").hidden = state.models.length < 2;
  fill(by("model"), state.models, state.model);
  if (document.activeElement !== by("range")) by("range").value = state.range;
  if (document.activeElement !== by("alpha")) by("alpha").value = state.alpha;
  by("alpha").disabled = state.layout !== "overlay";
  by("freeze").setAttribute("aria-pressed", state.frozen);
  by("record").setAttribute("aria-pressed", state.recording);
  by("record").textContent = state.recording ? "Stop recording" : "Record";
  by("caption").textContent = state.message;
  const list = state.recordings.map(([number, name]) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = "recordings/" + number;
    link.download = name;
    link.textContent = "Download " + name;
    item.append(link);
    return item;
  });
  if (by("recordings").children.length !== list.length) by("recordings").replaceChildren(...list);
  numbers(state.numbers);
  latencies.push(state.latencies_ms);
  if (latencies.length > 240) latencies.shift();
  plot();
}

function watch() {
  by("picture").src = "pictures?" + Date.now();
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

by("picture").addEventListener("error", () => {
  if (document.hidden || (state && state.ended)) return;
  say("no image: too many viewers, or the connection was lost; trying again", true);
  setTimeout(watch, 3000);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    if (events) events.close();
    events = null;
    by("picture").removeAttribute("src");
  } else if (!(state && state.ended)) {
    watch();
    listen();
  }
});
for (const id of ["layout", "colormap", "model"]) by(id).addEventListener("change", (event) => send(id, event.target.value));
by("alpha").addEventListener("input", (event) => send("alpha", Number(event.target.value)));
by("range").addEventListener("change", (event) => send("range", event.target.value));
by("freeze").addEventListener("click", () => send("freeze", !(state && state.frozen)));
by("record").addEventListener("click", () => send("record", !(state && state.recording)));
by("controls").addEventListener("submit", (event) => event.preventDefault());
listen();
