"use strict";
// Adds to a page that is complete without it: zoom of all pictures of a photo together, a slider between any two of
// them with the map of their difference, and a filter. Everything it shows is in the page already.
const MOST = 16, STEP = 1.5, FAR = 5; // largest zoom; factor of a key or a turn of the wheel; pixels that make a drag
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

class Zoom {
  constructor(photo) {
    this.photo = photo;
    this.factor = 1;
    this.left = this.top = 0; // of what is visible, in shares of the picture
    this.pointers = new Map();
    this.dragged = false;
    const tools = copy("zoom-template"), panes = photo.querySelector(".panes");
    panes.before(tools);
    panes.tabIndex = 0;
    panes.setAttribute("role", "group");
    panes.setAttribute("aria-label", "Pictures. Plus and minus zoom, arrows move, 0 shows the whole picture");
    this.reading = tools.querySelector("[data-zoom=reset]");
    tools.addEventListener("click", (event) => {
      const { zoom } = event.target.dataset;
      if (zoom === "reset") this.reset();
      else if (zoom) this.by(zoom === "in" ? STEP : 1 / STEP);
    });
    photo.addEventListener("keydown", (event) => this.key(event));
    photo.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    photo.addEventListener("pointerdown", (event) => this.down(event));
    photo.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      photo.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    photo.addEventListener("click", (event) => this.click(event));
  }

  show() {
    const hidden = 1 - 1 / this.factor;
    this.left = clamp(this.left, 0, hidden);
    this.top = clamp(this.top, 0, hidden);
    for (const [name, value] of [["zoom", this.factor], ["left", this.left], ["top", this.top]]) {
      this.photo.style.setProperty(`--${name}`, value);
    }
    this.photo.classList.toggle("zoomed", this.factor > 1);
    this.reading.textContent = `${Math.round(this.factor * 100)} %`;
  }

  // Zooms about a point of the view, in shares of it, which stays where it is.
  by(factor, x = 0.5, y = 0.5) {
    const old = this.factor;
    this.factor = clamp(old * factor, 1, MOST);
    if (this.factor < 1.01) this.factor = 1;
    this.left += x / old - x / this.factor;
    this.top += y / old - y / this.factor;
    this.show();
  }

  pan(x, y) {
    this.left += x / this.factor;
    this.top += y / this.factor;
    this.show();
  }

  reset() {
    this.factor = 1;
    this.show();
  }

  key(event) {
    if (!event.target.closest(".panes, .tools") || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key === "+" || event.key === "=") this.by(STEP);
    else if (event.key === "-" || event.key === "_") this.by(1 / STEP);
    else if (event.key === "0") this.reset();
    else if (event.key in moves && this.factor > 1) this.pan(...moves[event.key]);
    else return;
    event.preventDefault();
  }

  // The wheel alone scrolls the page until the pictures are zoomed in.
  wheel(event) {
    const view = event.target.closest(".view");
    if (!view || !(event.ctrlKey || event.metaKey || (this.factor > 1 && event.deltaY))) return;
    event.preventDefault();
    this.by(event.deltaY < 0 ? STEP : 1 / STEP, ...Zoom.share(view, event.clientX, event.clientY));
  }

  down(event) {
    const view = event.target.closest(".view");
    if (!view || event.button > 0) return;
    if (!this.pointers.size) this.dragged = false;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.factor > 1 || this.pointers.size > 1) view.setPointerCapture(event.pointerId);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId), view = event.target.closest(".view");
    if (!before || !view) return;
    const { width, height } = view.getBoundingClientRect(), now = [event.clientX, event.clientY];
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
      const middle = Zoom.share(view, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      if (apart(before) > 0) this.by(apart(now) / apart(before), ...middle);
      this.pan(-dx / width / 2, -dy / height / 2);
      this.dragged = true;
    } else if (this.dragged || Math.hypot(dx, dy) > FAR) {
      this.dragged = true;
      if (this.factor > 1) this.pan(-dx / width, -dy / height);
    } else return;
    this.pointers.set(event.pointerId, now);
  }

  click(event) {
    const view = event.target.closest(".view");
    if (!view || this.dragged) return;
    if (event.shiftKey) this.by(0.5, ...Zoom.share(view, event.clientX, event.clientY));
    else if (this.factor * 2 > MOST) this.reset();
    else this.by(2, ...Zoom.share(view, event.clientX, event.clientY));
  }

  static share(view, x, y) {
    const box = view.getBoundingClientRect();
    return [(x - box.left) / box.width, (y - box.top) / box.height];
  }
}

class Pair {
  constructor(photo) {
    this.figures = new Map();
    for (const figure of photo.querySelectorAll(":scope > .panes > figure")) {
      this.figures.set(figure.dataset.key, { figure, name: Pair.name(figure) });
    }
    if (this.figures.size < 2) return;
    this.differences = photo.querySelector(".differences");
    const made = copy("compare-template");
    this.find = (selector) => made.querySelector(selector);
    const keys = [...this.figures.keys()], maps = keys.filter((key) => key !== "photo");
    const chosen = maps.length > 1 ? maps : keys;
    [this.left, this.right] = ["select.left", "select.right"].map((selector, index) => {
      const select = this.find(selector);
      select.replaceChildren(...keys.map((key) => new Option(this.figures.get(key).name, key)));
      select.value = chosen[index];
      select.addEventListener("change", () => this.show());
      return select;
    });
    this.range = this.find("input");
    this.range.addEventListener("input", () => this.slide());
    const before = [".switches", ".note", ".scale", ".panes"].map((part) => photo.querySelector(`:scope > ${part}`));
    before.find(Boolean).after(made);
    this.show();
  }

  static name(figure) {
    const caption = figure.querySelector("figcaption").cloneNode(true);
    caption.querySelectorAll(".chip").forEach((chip) => chip.remove());
    return caption.textContent;
  }

  static canvas(figure) {
    const old = figure.querySelector("img"), canvas = document.createElement("div"), image = new Image();
    canvas.className = "canvas";
    image.loading = "lazy";
    image.draggable = false;
    for (const name of ["class", "width", "height", "alt", "src"]) {
      if (old.hasAttribute(name)) image.setAttribute(name, old.getAttribute(name));
    }
    canvas.append(image);
    return canvas;
  }

  show() {
    const [left, right] = [this.left, this.right].map((select) => this.figures.get(select.value));
    this.find(".under").replaceChildren(Pair.canvas(right.figure));
    this.find(".over").replaceChildren(Pair.canvas(left.figure));
    this.find(".left-name").textContent = `← ${left.name}`;
    this.find(".right-name").textContent = `${right.name} →`;
    this.range.setAttribute("aria-label", `How much of ${left.name} covers ${right.name}`);
    this.names = [left.name, right.name];
    this.slide();
    this.apart();
  }

  slide() {
    const share = Number(this.range.value);
    this.find(".over").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    this.find(".handle").style.left = `${share}%`;
    this.range.setAttribute("aria-valuetext", `${share} % ${this.names[0]}, ${100 - share} % ${this.names[1]}`);
  }

  apart() {
    const keys = [this.left.value, this.right.value].map((key) => key.replace(/^depth:/, ""));
    const wanted = [`difference:${keys.join("|")}`, `difference:${keys.reverse().join("|")}`];
    const figures = this.differences ? [...this.differences.querySelectorAll("figure")] : [];
    const found = figures.find((figure) => wanted.includes(figure.dataset.key));
    const view = this.find(".apart .view"), caption = this.find(".apart figcaption");
    view.hidden = !found;
    if (!found) {
      view.replaceChildren();
      caption.textContent = this.left.value === this.right.value ? "Choose two different pictures for their difference."
        : keys.includes("photo") ? "A photo has no depth to differ from; choose two depth maps for their difference."
        : "These two cannot be aligned, so there is no difference to show.";
      return;
    }
    const bar = this.differences.querySelector(".scale");
    view.replaceChildren(Pair.canvas(found));
    caption.replaceChildren(`Difference of ${this.names[0]} and ${this.names[1]}`, ...(bar ? [bar.cloneNode(true)] : []));
  }
}

function addFilter() {
  const box = document.getElementById("filter"), found = document.getElementById("found");
  if (!box) return;
  const photos = [...document.querySelectorAll(".photo")], entries = [...document.querySelectorAll(".index li")];
  const all = found.textContent;
  const names = entries.map((entry) => entry.textContent.toLowerCase());
  box.closest(".filter").hidden = false;
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    const fits = names.map((name) => name.includes(wanted));
    fits.forEach((fit, index) => { photos[index].hidden = entries[index].hidden = !fit; });
    found.textContent = `${fits.filter(Boolean).length} of ${all}`;
  });
}

// A link to a definition opens it.
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details")) target.open = true;
}

// A table that is wider than the page can be scrolled by keyboard, too.
function markScrolling() {
  for (const part of document.querySelectorAll(".scrolling")) {
    const scrolls = part.scrollWidth > part.clientWidth + 1;
    part.toggleAttribute("tabindex", false);
    if (scrolls) part.tabIndex = 0;
  }
}

for (const photo of document.querySelectorAll(".photo:has(.panes > figure)")) {
  new Zoom(photo);
  new Pair(photo);
}
addFilter();
openTarget();
markScrolling();
addEventListener("hashchange", openTarget);
addEventListener("resize", markScrolling);
addEventListener("beforeprint", () => {
  document.querySelectorAll("img[loading=lazy]").forEach((image) => { image.loading = "eager"; });
  document.querySelectorAll("details.finding, details.marked").forEach((part) => { part.open = true; });
});
