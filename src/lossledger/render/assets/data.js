// The page's data: packed arrays (see page/pack.py), tracks, and their x axes.

const AXES = {
  step: { label: "step of the run" },
  epoch: { label: "epochs trained" },
  rows: { label: "rows trained" },
  time: { label: "time since the run began" },
};

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

async function unpack(packed) {
  const size = packed.type === "f8" ? 8 : 4;
  const coded = fromBase64(packed.data);
  const planes = packed.zip ? await inflate(coded) : coded;
  const n = packed.length;
  const bytes = new Uint8Array(n * size);
  for (let k = 0; k < size; k++) {
    for (let i = 0, from = k * n, to = k; i < n; i++, from++, to += size) bytes[to] = planes[from];
  }
  const values = size === 8 ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
  if (packed.delta) for (let i = 1; i < n; i++) values[i] += values[i - 1];
  return values;
}

// `old` with everything from place `begin` on replaced; a curve may tell nothing before `begin`.
function spliced(old, begin, tail) {
  if (begin === 0) return tail;
  const values = new tail.constructor(begin + tail.length);
  if (old) values.set(old.subarray(0, begin)); else values.fill(NaN, 0, begin);
  values.set(tail, begin);
  return values;
}

// The first place whose value is not below x; values never fall.
function searched(values, x) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

// A curve is unpacked when it is first drawn: most of a large page never is.
class Curve {
  constructor() { this.parts = []; this.arrays = null; }
  add(packed, begin) { this.parts.push([packed, begin]); }
  async load() {
    while (this.parts.length) {
      const [packed, begin] = this.parts.shift();
      const found = {};
      for (const [name, each] of Object.entries(packed)) {
        found[name] = spliced(this.arrays && this.arrays[name], begin, await unpack(each));
      }
      this.arrays = found;
    }
    return this;
  }
  get min() { return this.arrays.value || this.arrays.min; }
  get max() { return this.arrays.value || this.arrays.max; }
  get mean() { return this.arrays.value || this.arrays.mean; }
  // How many values of a bucket are not finite.
  lost(i) {
    if (this.arrays.nonfinite) return this.arrays.nonfinite[i];
    return Number.isFinite(this.arrays.value[i]) ? 0 : 1;
  }
}

// Seconds between the returns of entries, from the axis of time; none at a call's first.
class StepTimes extends Curve {
  constructor(track) { super(); this.track = track; }
  async load() {
    if (this.arrays) return this;
    const times = (await this.track.axes.time.load()).arrays.value;
    const value = new Float32Array(times.length);
    for (let i = 1; i < value.length; i++) value[i] = (times[i] - times[i - 1]) / 1e6;
    for (const first of this.track.calls) if (first < value.length) value[first] = NaN;
    this.arrays = { value };
    return this;
  }
}

class Track {
  constructor(run, model) {
    this.run = run; this.model = model;
    this.curves = {}; this.axes = {}; this.points = []; this.cache = {}; this.entries = 0;
  }
  async take(line) {
    Object.assign(this, { bucket: line.bucket, entries: line.entries, name: line.name,
                          glance: Boolean(line.glance) });
    for (const [name, packed] of Object.entries(line.curves)) {
      (this.curves[name] ||= new Curve()).add(packed, line.begin);
    }
    for (const [name, packed] of Object.entries(line.axes)) {
      (this.axes[name] ||= new Curve()).add({ value: packed }, line.begin);
    }
    this.calls = await unpack(line.calls);
    if (this.bucket === 1) this.curves.step_time = new StepTimes(this);
    this.epochs = { stride: line.epochs.stride, count: line.epochs.count };
    for (const name of ["begin", "end", "call", "epoch", "epoch_mean", "batch_mean"]) {
      this.epochs[name] = await unpack(line.epochs[name]);
    }
    this.points = [];
    for (const each of line.points) {
      this.points.push({ name: each.name, at: await unpack(each.at), value: await unpack(each.value) });
    }
    this.cache = {};
  }
  get length() { return Math.ceil(this.entries / this.bucket); }
  // The entries before and with the one that stands for a bucket.
  entriesAt(i) {
    return Math.min(i * this.bucket + (this.bucket >> 1), this.entries - 1) + 1;
  }
  epochOf(entries) {
    const place = searched(this.epochs.begin, entries) - 1;
    return Math.max(place, 0);
  }
  epochPosition(entries) {
    const { begin, stride, count } = this.epochs;
    const place = this.epochOf(entries);
    const last = place === begin.length - 1;
    const end = last ? this.entries : begin[place + 1];
    const many = last ? count - place * stride : stride;
    let steps = end - begin[place];
    // An epoch that still goes on is taken to be as long as the one before.
    if (last && place > 0 && this.growing) steps = Math.max(steps, begin[place] - begin[place - 1]);
    return place * stride + (many * (entries - begin[place])) / Math.max(steps, 1);
  }
  // Where each carried bucket stands on an axis.
  async xs(axis) {
    if (this.cache[axis]) return this.cache[axis];
    let xs = null;
    if (axis === "epoch") {
      xs = new Float64Array(this.length);
      const { begin } = this.epochs;
      for (let i = 0, place = 0; i < xs.length; i++) {
        const entries = this.entriesAt(i);
        while (place + 1 < begin.length && begin[place + 1] < entries) place++;
        xs[i] = this.epochPosition(entries);
      }
    } else {
      xs = (await this.axes[axis].load()).arrays.value;
      if (axis === "time") xs = xs.map((x) => x / 1e6);
    }
    this.cache[axis] = xs;
    return xs;
  }
  // Where the axis stands after so many entries; `xs` has been asked for before.
  xAfter(axis, entries) {
    if (axis === "epoch") return entries ? this.epochPosition(entries) : 0;
    const xs = this.cache[axis];
    if (!xs.length || entries <= 0) return xs.length ? xs[0] : 0;
    return xs[Math.min(Math.floor((entries - 1) / this.bucket), xs.length - 1)];
  }
}
