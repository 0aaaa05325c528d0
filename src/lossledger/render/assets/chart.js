// One chart: uPlot gives axes, cursor and selection; what is drawn in it, paint.js draws.

const SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

// How each curve is drawn. A cloud is points, or where these are too many an envelope.
const LOOK = {
  raw: { kind: "cloud", color: "--raw", z: 0 },
  running_mean: { kind: "line", color: "--running", width: 1, alpha: 0.85, z: 1 },
  ema: { kind: "line", color: "--ema", width: 2, z: 2 },
  epoch_mean: { kind: "marks", shape: "circle", color: "--epoch", size: 3.2, join: 1, z: 4 },
  batch_mean: { kind: "marks", shape: "ring", color: "--batch", size: 3, z: 3 },
  evaluate: { kind: "marks", shape: "square", color: "--evaluate", size: 3.4, z: 6 },
  learning_rate: { kind: "line", color: "--ema", width: 1.6, z: 1 },
  step_time: { kind: "cloud", color: "--ema", z: 0 },
  penalty: { kind: "line", color: "--running", width: 1.4, z: 1 },
};
const VALIDATION = { kind: "marks", shape: "diamond", color: "--validation", size: 3.4, join: 1.4,
                     dash: [5, 4], z: 5 };
const OUTPUTS = ["--ema", "--evaluate", "--validation", "--epoch", "--raw", "--batch"];
const RUNS = ["--run-0", "--run-1", "--run-2", "--run-3", "--run-4", "--run-5"];

function lookOf(series, place) {
  if (LOOK[series.id]) return LOOK[series.id];
  if (series.kind === "points") return VALIDATION;
  return { kind: "line", color: OUTPUTS[place % OUTPUTS.length], width: 1.2, z: 2 };
}

class Chart {
  constructor(root, group, app) {
    Object.assign(this, { root, group, app, plot: null, shape: "", items: [] });
    this.holder = root.querySelector(".plot");
    this.holder.addEventListener("keydown", (event) => app.key(event, this));
  }

  get series() { return this.app.series.filter((each) => each.group === this.group); }

  color(series, track, place) {
    if (this.app.runs.length > 1) return style(RUNS[track.run % RUNS.length]);
    return style(lookOf(series, place).color);
  }

  // What is drawn, and the ranges of both axes.
  async prepare() {
    const { app } = this;
    const { axis, log } = app.state;
    const logY = this.group === "step_time" || (log && this.group !== "learning_rate");
    const width = Math.max(this.width - 76, 80);
    const extent = new Extent(logY);
    this.items = [];
    this.dense = 0; this.seen = 0;
    for (const [place, series] of this.series.entries()) {
      if (!app.shown(series.id)) continue;
      for (const track of app.tracks) {
        const xs = await track.xs(axis);
        const item = { series, track, look: lookOf(series, place),
                       color: this.color(series, track, place) };
        if (series.kind === "points") {
          item.points = this.points(series, track, axis);
          for (const [x, y] of item.points) if (this.inside(x)) extent.value(y);
        } else if (track.curves[series.id]) {
          const curve = await track.curves[series.id].load();
          const cloud = item.look.kind === "cloud";
          const limit = cloud && track.bucket === 1 ? 4 * width : 2 * width;
          item.found = columns(curve, xs, app.view, width, limit);
          item.curve = curve; item.xs = xs;
          if (cloud) this.count(item, track);
          else extent.add(item.found, item.found.dense ? ["min", "max"] : ["mean"]);
        } else continue;
        this.items.push(item);
      }
    }
    this.items.sort((a, b) => a.look.z - b.look.z);
    this.clouds(extent, logY);
    this.log = logY && extent.low <= extent.high;
    this.yRange = (this.group === "loss" && app.state.y) || extent.range;
  }

  // Clouds count for the range of the y axis without their outliers, unless all is asked for.
  clouds(extent, log) {
    const clouds = this.items.filter((item) => item.look.kind === "cloud").map((item) => item.found);
    this.above = 0;
    const values = clouds.flatMap((found) => [...found.min.subarray(0, found.n),
                                              ...found.max.subarray(0, found.n)]);
    const kept = this.app.state.trim && this.group === "loss" ? core(values, log) : null;
    for (const value of values) {
      if (kept && (value < kept[0] || value > kept[1])) continue;
      extent.value(value);
    }
    const [low, high] = extent.range;
    this.edge = [];
    if (!kept || this.app.state.y) return;
    for (const found of clouds) {
      for (let i = 0; i < found.n; i++) {
        if (!this.inside(found.x[i])) continue;
        const up = found.max[i] > high, down = found.min[i] < low && (!log || found.min[i] > 0);
        if (up) this.edge.push([found.x[i], true]);
        if (down) this.edge.push([found.x[i], false]);
        this.above += Number(up || down);
      }
    }
  }

  inside(x) { return x >= this.app.view[0] && x <= this.app.view[1]; }

  count(item, track) {
    const { begin, end, dense } = item.found;
    const entries = Math.min(end * track.bucket, track.entries) - begin * track.bucket;
    this.seen += Math.max(entries, 0);
    if (dense || track.bucket > 1) this.dense += Math.max(entries, 0);
    this.bucket = track.bucket;
    this.glance = track.glance;
  }

  points(series, track, axis) {
    const found = track.points.find((each) => each.name === series.id);
    if (!found) return [];
    return Array.from(found.at, (at, i) => [track.xAfter(axis, at), found.value[i]]);
  }

  get width() { return this.app.printing ? 690 : this.holder.clientWidth || 600; }
  get height() {
    if (this.group !== "loss") return 170;
    return this.app.printing ? 340 : Math.max(280, Math.min(440, window.innerHeight * 0.5));
  }

  async refresh() {
    await this.prepare();
    this.root.hidden = !this.series.some((each) => this.app.tracks.some((track) =>
      each.kind === "points" ? this.points(each, track, this.app.state.axis).length
                             : track.curves[each.id]));
    if (this.root.hidden && this.group !== "loss") return;
    const shape = [this.log, this.width, this.height, this.app.theme, this.app.state.axis].join();
    if (shape !== this.shape || !this.plot) this.create(shape);
    this.plot.batch(() => {
      const [x0, x1] = this.app.view, [y0, y1] = this.yRange;
      this.plot.setScale("x", { min: x0, max: x1 });
      this.plot.setScale("y", { min: y0, max: y1 });
    });
    this.plot.redraw(false, true);
  }

  create(shape) {
    if (this.plot) this.plot.destroy();
    this.shape = shape;
    const app = this.app, view = app.view, y = this.yRange;
    const line = { stroke: style("--muted"), font: `11px ${SANS}`,
                   grid: { stroke: style("--grid"), width: 1 }, ticks: { stroke: style("--grid") } };
    const time = this.group === "step_time";
    const axis = app.state.axis;
    this.plot = new uPlot({
      width: this.width, height: this.height, legend: { show: false }, padding: [10, 14, 0, 0],
      scales: { x: { time: false, auto: false, min: view[0], max: view[1] },
                y: { auto: false, distr: this.log ? 3 : 1, min: y[0], max: y[1] } },
      series: [{}, { scale: "y", paths: () => null, points: { show: false } }],
      axes: [
        { ...line, label: AXES[axis].label, labelFont: `12px ${SANS}`, labelSize: 20, size: 34,
          values: (u, splits) => splits.map((v) => axis === "time" ? duration(v) : compact(v)) },
        // A low chart with a tick in 30 pixels, as uPlot has it, may come to a single one: no scale.
        { ...line, size: 62, space: this.group === "loss" ? 30 : 20,
          ...(this.log ? { splits: (u, i, low, high) => logSplits(low, high),
                           filter: (u, splits) => splits } : {}),
          values: (u, splits) => splits.map((v) => v === null ? "" : time ? duration(v) : tick(v)) },
      ],
      cursor: {
        y: false, points: { show: false },
        drag: { x: true, y: this.group === "loss", uni: 28, setScale: false },
        bind: { dblclick: () => () => { app.reset(); return null; } },
        sync: { key: "page", scales: ["x", null], setSeries: false,
                filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
      },
      hooks: { draw: [() => this.paint()], setSelect: [() => this.selected()],
               setCursor: [(u) => { if (u.cursor.left >= 0) app.readout(u.posToVal(u.cursor.left, "x")); }] },
    }, [[view[0], view[1]], [null, null]], this.holder);
    this.holder.querySelector("canvas").setAttribute("aria-hidden", "true");
  }

  selected() {
    const { left, top, width, height } = this.plot.select;
    if (width < 4 && height < 4) return;
    const u = this.plot;
    this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (width >= 4) this.app.zoom([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
    const whole = height >= u.bbox.height / DPR() - 2;
    if (this.group === "loss" && height >= 4 && !whole) {
      this.app.zoomY([u.posToVal(top + height, "y"), u.posToVal(top, "y")]);
    }
  }

  paint() {
    const u = this.plot;
    if (!u || !u.bbox || !u.bbox.width) return;
    const map = mapper(u, this.log);
    clipped(u, (ctx) => {
      this.rules(u, ctx);
      for (const item of this.items) this.item(ctx, map, item);
      if (this.group === "loss") {
        paintEdges(u, ctx, this.edge, style("--raw"));
        this.lost(u, ctx);
      }
    });
    if (this.group === "loss") this.app.painted();
  }

  item(ctx, map, item) {
    const { look, color, found } = item, ratio = DPR();
    ctx.globalAlpha = look.alpha || 1;
    if (look.kind === "cloud") {
      const envelope = found.dense || item.track.bucket > 1;
      const many = found.n / Math.max(this.width, 1);
      ctx.globalAlpha = envelope ? 0.32 : many > 1 ? 0.5 : many > 0.2 ? 0.65 : 0.9;
      if (envelope) {
        paintBand(ctx, map, found, color);
        ctx.globalAlpha = 0.55;
        paintLine(ctx, map, found, color, ratio, false);
      } else paintPoints(ctx, map, found, color, (many > 0.4 ? 2 : many > 0.1 ? 2.6 : 3.4) * ratio);
    } else if (look.kind === "line") {
      paintLine(ctx, map, found, color, look.width * ratio, found.dense);
    } else {
      const points = item.points;
      if (look.join && points.length > 1) {
        const x = points.map((each) => each[0]), mean = points.map((each) => each[1]);
        ctx.globalAlpha = 0.6;
        paintLine(ctx, map, { x, mean, n: x.length }, color, look.join * ratio, false,
                  (look.dash || []).map((each) => each * ratio));
        ctx.globalAlpha = 1;
      }
      const tight = points.length > this.width / 7;
      paintMarks(ctx, map, points, color, look.shape, (tight ? 1.6 : look.size) * ratio);
    }
    ctx.globalAlpha = 1;
  }

  // Where epochs and calls begin; not where the lines would be a wall.
  rules(u, ctx) {
    for (const track of this.app.tracks) {
      const { begin, call } = track.epochs;
      const epochs = [], calls = [];
      for (let i = 1; i < begin.length; i++) {
        const x = track.xAfter(this.app.state.axis, begin[i]);
        if (this.inside(x)) (call[i] === call[i - 1] ? epochs : calls).push(x);
      }
      if (epochs.length < this.width / 14) paintRules(u, ctx, epochs, style("--rule"), 1);
      if (calls.length < this.width / 14) {
        paintRules(u, ctx, calls, style("--call"), DPR(), [4 * DPR(), 3 * DPR()]);
      }
      if (this.app.runs.length > 1) break;
    }
  }

  lost(u, ctx) {
    const places = [];
    for (const { curve, xs, found, series } of this.items) {
      if (series.id !== "raw") continue;
      let last = -Infinity;
      for (let i = found.begin; i < found.end; i++) {
        if (!curve.lost(i) || !this.inside(xs[i])) continue;
        const x = Math.round(toX(u, xs[i]));
        if (x !== last) places.push(xs[i]);
        last = x;
      }
    }
    paintLost(u, ctx, places, style("--bad"));
  }
}

function compact(v) {
  if (v === null) return "";
  const size = Math.abs(v);
  if (size >= 1e9) return `${Number((v / 1e9).toPrecision(6))} G`;
  if (size >= 1e6) return `${Number((v / 1e6).toPrecision(6))} M`;
  return v.toLocaleString("en-US", { maximumFractionDigits: 6 });
}

function tick(v) {
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return v.toExponential(1).replace(".0e", "e");
  return Number(v.toPrecision(10)).toLocaleString("en-US", { maximumFractionDigits: 8 });
}

// Ticks of a log axis: powers of ten, with 2 and 5 or every digit where there are few.
function logSplits(low, high) {
  const decades = Math.log10(high / low);
  const digits = decades > 4 ? [1] : decades > 1.5 ? [1, 2, 5] : decades > 0.6
    ? [1, 2, 3, 4, 5, 7] : null;
  if (!digits) {
    const step = 10 ** Math.floor(Math.log10((high - low) / 3));
    const nice = [1, 2, 5, 10].map((k) => k * step).find((s) => (high - low) / s <= 7);
    const found = [];
    for (let v = Math.ceil(low / nice) * nice; v <= high; v += nice) found.push(v);
    return found;
  }
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const d of digits) if (d * 10 ** e >= low && d * 10 ** e <= high) found.push(d * 10 ** e);
  }
  return found;
}
