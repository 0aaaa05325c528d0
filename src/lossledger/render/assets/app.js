// The page's state, its controls, and what happens when they are used.

const OFF_AT_FIRST = { one: new Set(["batch_mean"]), many: new Set(["batch_mean", "running_mean"]) };

class App {
  constructor(data) {
    this.data = data;
    this.runs = data.runs;
    this.series = data.series;
    this.all = [];
    const off = this.runs.length > 1 ? OFF_AT_FIRST.many : OFF_AT_FIRST.one;
    this.state = { axis: "step", log: false, trim: true, x: null, y: null, model: null, run: null,
                   off: new Set(off), hidden: new Set() };
    this.printing = false;
    this.charts = [...document.querySelectorAll("[data-chart]")].map(
      (root) => new Chart(root, root.dataset.chart, this));
  }

  get theme() {
    if (this.printing) return "light";
    return document.documentElement.dataset.theme ||
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  async take(data) {
    for (const line of data.lines) {
      let track = this.all.find((each) => each.run === line.run && each.model === line.model);
      if (!track || line.begin === 0) {
        this.all = this.all.filter((each) => each !== track);
        track = new Track(line.run, line.model);
        this.all.push(track);
      }
      track.growing = line.growing;
      await track.take(line);
    }
    this.all.sort((a, b) => a.run - b.run || a.model - b.model);
    this.series = data.series;
  }

  shown(id) { return !this.state.off.has(id); }

  get tracks() {
    return this.all.filter((each) => !this.state.hidden.has(each.run) && each.entries > 0 &&
      (this.state.model === null || each.model === this.state.model));
  }

  // The whole of the x axis.
  async measure() {
    let low = Infinity, high = -Infinity;
    for (const track of this.tracks) {
      const xs = await track.xs(this.state.axis);
      if (!xs.length) continue;
      low = Math.min(low, xs[0]); high = Math.max(high, xs[xs.length - 1]);
    }
    if (!(low <= high)) [low, high] = [0, 1];
    if (this.state.axis === "epoch" || this.state.axis === "rows") low = 0;
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const margin = (high - low) * 0.008;
    this.whole = [low - margin, high + margin];
  }

  get view() { return this.state.x || this.whole; }

  async refresh() {
    await this.measure();
    for (const chart of this.charts) await chart.refresh();
    this.caption();
    this.readout(this.view[1]);
    this.reset_.disabled = !this.state.x && !this.state.y;
  }

  painted() {
    const root = document.documentElement;
    if (!root.dataset.painted) root.dataset.painted = performance.now().toFixed(1);
    root.dataset.paints = Number(root.dataset.paints || 0) + 1;
    root.dataset.view = JSON.stringify(this.view);
  }

  zoom(view) {
    const [low, high] = [Math.max(view[0], this.whole[0]), Math.min(view[1], this.whole[1])];
    this.state.x = high > low && (low > this.whole[0] || high < this.whole[1]) ? [low, high] : null;
    return this.refresh();
  }

  zoomY(range) { this.state.y = range; return this.refresh(); }

  reset() { this.state.x = this.state.y = null; return this.refresh(); }

  // By a factor around a place; the width stays when it is 1.
  scale(factor, at = 0.5, shift = 0) {
    const [low, high] = this.view, width = high - low;
    const begin = low + width * at - width * factor * at + width * shift;
    const end = Math.min(begin + width * factor, Math.max(this.whole[1], high));
    return this.zoom([shift > 0 ? end - width * factor : Math.max(begin, this.whole[0]),
                      shift < 0 ? Math.max(begin, this.whole[0]) + width * factor : end]);
  }

  // The same entries on another axis.
  async setAxis(axis) {
    const { x } = this.state, before = this.state.axis;
    this.state.axis = axis;
    this.state.x = null;
    await this.measure();
    const track = this.tracks[0];
    if (x && track) {
      const [old, now] = [await track.xs(before), await track.xs(axis)];
      const at = (v) => now[Math.min(searched(old, v), now.length - 1)];
      if (at(x[1]) > at(x[0])) this.state.x = [at(x[0]), at(x[1])];
    }
    return this.refresh();
  }

  key(event, chart) {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves && event.shiftKey) this.scale(1, 0.5, 0.2 * moves[event.key]);
    else if (event.key in moves) this.step(chart, moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.scale(0.5);
    else if (event.key === "-") this.scale(2);
    else if (event.key === "0" || event.key === "Escape" || event.key === "Home") this.reset();
    else return;
    event.preventDefault();
  }

  // Moves the cursor by one entry, or by a pixel where these are closer.
  step(chart, by) {
    const u = chart.plot, track = this.tracks[0];
    if (!u || !track) return;
    const width = u.bbox.width / DPR();
    const xs = track.cache[this.state.axis];
    const from = u.cursor.left >= 0 ? u.cursor.left : by > 0 ? -1 : width;
    const here = u.posToVal(from, "x");
    let place = searched(xs, here);
    if (by > 0) while (place < xs.length && u.valToPos(xs[place], "x") < from + 1) place++;
    else { place--; while (place > 0 && u.valToPos(xs[place], "x") > from - 1) place--; }
    place = Math.min(Math.max(place, 0), xs.length - 1);
    if (!this.inView(xs[place])) return;
    u.setCursor({ left: u.valToPos(xs[place], "x"), top: 10 });
  }

  inView(x) { return x >= this.view[0] && x <= this.view[1]; }

  // The values at the cursor, of each run.
  readout(x) {
    const lines = this.tracks.slice(0, 6).map((track) => {
      const xs = track.cache[this.state.axis];
      if (!xs || !xs.length) return null;
      let i = searched(xs, x);
      if (i === xs.length || (i > 0 && x - xs[i - 1] < xs[i] - x)) i--;
      return this.valuesAt(track, i);
    });
    const box = document.getElementById("readout");
    box.replaceChildren(...lines.filter(Boolean));
  }

  valuesAt(track, i) {
    const line = document.createElement("p");
    const add = (tag, text, value) => {
      const part = document.createElement(tag);
      part.append(text);
      if (value !== undefined) {
        const number = document.createElement("b");
        number.append(value);
        part.append(" ", number);
      }
      line.append(part);
    };
    const entries = track.entriesAt(i);
    const place = track.epochOf(entries);
    const exact = track.bucket === 1;
    const step = track.axes.step.arrays && track.axes.step.arrays.value[i];
    const where = [step === undefined || step === null ? `entry ${entries - 1}` : `step ${step}`];
    if (track.epochs.stride === 1 && track.epochs.begin.length) {
      where.push(`epoch ${track.epochs.epoch[place]}`);
      if (exact) where.push(`batch ${entries - 1 - track.epochs.begin[place]}`);
    }
    if (!exact) where.push(`${track.bucket.toLocaleString("en-US")} entries`);
    if (this.runs.length > 1) add("strong", `${this.runs[track.run].name} `);
    add("span", where.join(", "));
    for (const series of this.series) {
      const curve = track.curves[series.id];
      if (series.kind === "points" || !curve || !curve.arrays || !this.shown(series.id)) continue;
      const value = curve.mean[i];
      // A loss may be NaN; what is no loss is then not known.
      if (Number.isNaN(value) && series.group !== "loss") continue;
      const format = series.id === "step_time" ? duration : shortNumber;
      const spread = !exact && series.id === "raw"
        ? ` (${format(curve.min[i])} to ${format(curve.max[i])})` : "";
      add("span", series.name, `${format(value)}${spread}`);
    }
    return line;
  }

  caption() {
    const chart = this.charts.find((each) => each.group === "loss");
    const parts = [];
    if (this.shown("raw") && chart.seen) {
      const seen = chart.seen.toLocaleString("en-US");
      if (!chart.dense) parts.push(`Each point is the raw loss of one entry: ${seen} in view.`);
      else {
        const bucket = chart.glance ? " Single entries are being read."
          : chart.bucket > 1 ? ` This page keeps buckets of ${chart.bucket.toLocaleString("en-US")} entries.`
          : " Zoom in to see single entries.";
        parts.push(`The band is an envelope of ${seen} raw losses: smallest to largest in each ` +
                   `column, and their mean.${bucket}`);
      }
    }
    if (chart.above) {
      const many = chart.above === 1 ? "1 raw loss lies" : `${chart.above.toLocaleString("en-US")} ` +
        `${chart.dense ? "columns reach" : "raw losses lie"}`;
      parts.push(`${many} beyond the picture, marked by a triangle at its edge; “all” shows ` +
                 "them where they are.");
    }
    if (this.state.log && !chart.log) parts.push("No loss is positive: the axis stays linear.");
    document.getElementById("caption").textContent = parts.join(" ");
  }
}
