// What of a curve is seen: its entries, or columns of the picture with their min, max and mean.

// Of the entries of a view, the places from and to which it shows, one more on each side.
function range(xs, view) {
  const begin = Math.max(searched(xs, view[0]) - 1, 0);
  let end = searched(xs, view[1]);
  while (end < xs.length && xs[end] <= view[1]) end++;
  return [begin, Math.min(end + 1, xs.length)];
}

// Columns of about one pixel: x, min, max, mean of what is finite there. `dense` says that a
// column stands for several entries or buckets.
function columns(curve, xs, view, width, limit) {
  const [begin, end] = range(xs, view);
  const count = end - begin;
  const { min, max, mean } = curve;
  const dense = count > limit;
  const size = dense ? width + 3 : count;
  const out = {
    begin, end, dense, x: new Float64Array(size), min: new Float64Array(size),
    max: new Float64Array(size), mean: new Float64Array(size), n: 0,
  };
  if (!dense) {
    for (let i = 0; i < count; i++) {
      out.x[i] = xs[begin + i];
      out.min[i] = min[begin + i]; out.max[i] = max[begin + i]; out.mean[i] = mean[begin + i];
    }
    out.n = count;
    return out;
  }
  const scale = width / (view[1] - view[0]);
  let column = -2, low = 0, high = 0, sum = 0, seen = 0, n = -1;
  const close = () => {
    if (n < 0) return;
    out.x[n] = view[0] + (Math.min(Math.max(column, 0), width - 1) + 0.5) / scale;
    out.min[n] = seen ? low : NaN; out.max[n] = seen ? high : NaN;
    out.mean[n] = seen ? sum / seen : NaN;
  };
  for (let i = begin; i < end; i++) {
    const at = Math.floor((xs[i] - view[0]) * scale);
    const here = at < 0 ? -1 : at >= width ? width : at;
    if (here !== column) {
      close();
      n++; column = here; low = Infinity; high = -Infinity; sum = 0; seen = 0;
    }
    const value = mean[i];
    if (Number.isFinite(value)) {
      if (min[i] < low) low = min[i];
      if (max[i] > high) high = max[i];
      sum += value; seen++;
    }
  }
  close();
  out.n = n + 1;
  return out;
}

// Smallest and largest of what is shown, on a log axis of what is positive.
class Extent {
  constructor(log) { this.log = log; this.low = Infinity; this.high = -Infinity; }
  value(v) {
    if (!Number.isFinite(v) || (this.log && !(v > 0))) return;
    if (v < this.low) this.low = v;
    if (v > this.high) this.high = v;
  }
  add(found, names) {
    for (const name of names) for (let i = 0; i < found.n; i++) this.value(found[name][i]);
  }
  // The range to show, with a margin.
  get range() {
    let { low, high } = this;
    if (!(low <= high)) return this.log ? [0.1, 1] : [0, 1];
    if (this.log) {
      const margin = Math.max((high / low) ** 0.04, 1.05);
      return [low / margin, high * margin];
    }
    if (low === high) {
      const size = Math.abs(low) * 0.1 || 1;
      return [low - size, high + size];
    }
    const margin = (high - low) * 0.05;
    const floor = low >= 0 && low - margin < 0 ? 0 : low - margin;
    return [floor, high + margin];
  }
}

// Where a few values far outside the others would flatten all the rest: the range of those others.
function core(values, log) {
  const sorted = Float64Array.from(values.filter((v) => Number.isFinite(v) && (!log || v > 0)));
  sorted.sort();
  if (sorted.length < 40) return null;
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const map = log ? Math.log : (v) => v, back = log ? Math.exp : (v) => v;
  const [low, high] = [map(at(0.01)), map(at(0.99))];
  return [back(low - (high - low) * 0.35), back(high + (high - low) * 0.35)];
}

function shortNumber(value) {
  if (value === null || value === undefined) return "";
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(3);
  return Number(value.toPrecision(6)).toLocaleString("en-US", { maximumFractionDigits: 9 });
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const s = Math.abs(seconds);
  if (s === 0) return "0";
  if (s < 1e-3) return `${Number((seconds * 1e6).toPrecision(3))} µs`;
  if (s < 1) return `${Number((seconds * 1e3).toPrecision(4))} ms`;
  if (s < 120) return `${Number(seconds.toPrecision(4))} s`;
  if (s < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}
