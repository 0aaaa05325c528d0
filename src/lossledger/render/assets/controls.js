// Buttons, boxes, the theme, printing, and the beginning of it all.

const SVG = "http://www.w3.org/2000/svg";

function swatch(series, place) {
  const look = lookOf(series, place);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 22 12");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `swatch ${look.color.slice(2)}`);
  const add = (name, attributes) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    svg.append(node);
  };
  if (look.kind === "cloud") {
    for (const [x, y] of [[3, 8], [7, 4], [11, 7], [15, 3], [19, 8]]) {
      add("rect", { x: x - 1.3, y: y - 1.3, width: 2.6, height: 2.6, class: "fill" });
    }
  } else {
    const dash = look.dash ? { "stroke-dasharray": "4 3" } : {};
    if (look.kind === "line" || look.join) {
      add("line", { x1: 1, x2: 21, y1: 6, y2: 6, "stroke-width": look.width || 1.4, class: "line", ...dash });
    }
    if (look.shape === "circle") add("circle", { cx: 11, cy: 6, r: 3.4, class: "fill" });
    if (look.shape === "ring") add("circle", { cx: 11, cy: 6, r: 3, class: "ring" });
    if (look.shape === "square") add("rect", { x: 7.6, y: 2.6, width: 6.8, height: 6.8, class: "fill" });
    if (look.shape === "diamond") add("path", { d: "M11 1.6 15.4 6 11 10.4 6.6 6Z", class: "fill" });
  }
  return svg;
}

function box(text, title, on, change, mark) {
  const label = document.createElement("label");
  label.className = "chip";
  label.title = title;
  const input = document.createElement("input");
  input.type = "checkbox";
  input.checked = on;
  input.addEventListener("change", () => change(input.checked));
  const name = document.createElement("span");
  name.textContent = text;
  label.append(input, ...(mark ? [mark] : []), name);
  return label;
}

// Made anew only when there is another curve or run: a box in use keeps the focus.
function legends(app) {
  const all = JSON.stringify([app.series, app.runs, app.all.map((track) => [
    track.run, Object.keys(track.curves), track.points.map((each) => each.name)])]);
  if (app.legends === all) return;
  app.legends = all;
  for (const chart of app.charts) {
    const holder = chart.root.querySelector(".legend:not(.runs)");
    const mine = chart.series.filter((each) => app.all.some((track) => each.kind === "points"
      ? track.points.some((p) => p.name === each.id) : track.curves[each.id]));
    holder.classList.toggle("by-run", app.runs.length > 1);
    holder.hidden = mine.length < 2 && !["loss", "parts"].includes(chart.group);
    holder.replaceChildren(...mine.map((series) => {
      const place = chart.series.indexOf(series);
      const label = box(series.name, series.about, app.shown(series.id), (on) => {
        if (on) app.state.off.delete(series.id); else app.state.off.add(series.id);
        app.refresh();
      }, swatch(series, place));
      label.dataset.series = series.id;
      return label;
    }));
  }
  const runs = document.getElementById("runs");
  runs.hidden = app.runs.length < 2;
  runs.replaceChildren(...app.runs.map((run, i) => {
    const dot = document.createElement("i");
    dot.className = `dot run-${i % RUNS.length}`;
    return box(run.name, run.id, !app.state.hidden.has(i), (on) => {
      if (on) app.state.hidden.delete(i); else app.state.hidden.add(i);
      app.refresh();
    }, dot);
  }));
}

function models(app) {
  const select = document.getElementById("model");
  const found = new Map(app.all.map((track) => [track.model, track.name]));
  select.parentElement.hidden = found.size < 2;
  if (select.options.length === found.size) return;
  select.replaceChildren(...[...found].sort((a, b) => a[0] - b[0]).map(([model, name]) => {
    const option = document.createElement("option");
    option.value = model;
    option.textContent = name ? `${model}: ${name}` : `${model}`;
    return option;
  }));
  if (app.state.model === null && found.size) app.state.model = Math.min(...found.keys());
  select.value = app.state.model;
  select.onchange = () => {
    app.state.model = Number(select.value);
    app.reset();
  };
}

function pressed(name, value, act) {
  const buttons = [...document.querySelectorAll(`[data-${name}]`)];
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset[name] === value));
    button.addEventListener("click", () => {
      for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
      act(button.dataset[name]);
    });
  }
}

function themes(app) {
  const root = document.documentElement, button = document.getElementById("theme");
  const say = () => { button.textContent = app.theme === "dark" ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = app.theme === "dark" ? "light" : "dark";
    say();
    app.refresh();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { say(); app.refresh(); });
  say();
}

function printing(app) {
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    app.printing = true;
    app.refresh();
  });
  window.addEventListener("afterprint", () => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    app.printing = false;
    app.refresh();
  });
}

// A page of many entries is painted at a glance, and then from all of them.
async function completed(app) {
  if (document.readyState === "loading") {
    await new Promise((go) => document.addEventListener("DOMContentLoaded", go, { once: true }));
  }
  const whole = JSON.parse(document.getElementById("whole").textContent);
  if (whole) {
    await new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
    await app.take(whole);
    await app.refresh();
  }
  document.documentElement.dataset.whole = performance.now().toFixed(1);
}

async function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!("DecompressionStream" in window)) {
    document.getElementById("caption").textContent =
      "This browser is too old to draw the curves; the tables below have the numbers.";
    return;
  }
  document.documentElement.classList.add("drawn");
  const app = new App(data);
  app.reset_ = document.getElementById("reset");
  app.reset_.addEventListener("click", () => app.reset());
  document.getElementById("in").addEventListener("click", () => app.scale(0.5));
  document.getElementById("out").addEventListener("click", () => app.scale(2));
  pressed("axis", app.state.axis, (axis) => app.setAxis(axis));
  pressed("trim", "trim", (trim) => {
    app.state.trim = trim === "trim";
    app.state.y = null;
    app.refresh();
  });
  pressed("scale", "linear", (scale) => {
    app.state.log = scale === "log";
    app.state.y = null;
    app.refresh();
  });
  await app.take(data);
  legends(app);
  models(app);
  themes(app);
  printing(app);
  await app.refresh();
  await completed(app);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; app.refresh(); }
  });
  if (data.live) follow(app, data.live);
}

start();
