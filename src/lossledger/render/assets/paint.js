// Painting on a uPlot canvas; all positions are in canvas pixels.

const DPR = () => window.devicePixelRatio || 1;

// A colour of the style sheet as the theme in force has it.
const probe = document.head.appendChild(document.createElement("i"));
function style(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function clipped(u, paint) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  paint(ctx);
  ctx.restore();
}

const toX = (u, x) => u.valToPos(x, "x", true);

// Linear or logarithmic maps, once a painting: valToPos a point is slow for many.
function mapper(u, log) {
  const { left, top, width, height } = u.bbox;
  const { min: x0, max: x1 } = u.scales.x;
  const { min: y0, max: y1 } = u.scales.y;
  const kx = width / (x1 - x0);
  if (log) {
    const l0 = Math.log(y0), ky = height / (Math.log(y1) - l0);
    return [(x) => left + (x - x0) * kx,
            (y) => (y > 0 ? top + height - (Math.log(y) - l0) * ky : top + height + 9)];
  }
  const ky = height / (y1 - y0);
  return [(x) => left + (x - x0) * kx, (y) => top + height - (y - y0) * ky];
}

function paintPoints(ctx, map, found, color, size) {
  const [X, Y] = map;
  const half = size / 2;
  ctx.fillStyle = color;
  for (let i = 0; i < found.n; i++) {
    const y = found.mean[i];
    if (Number.isFinite(y)) ctx.fillRect(X(found.x[i]) - half, Y(y) - half, size, size);
  }
}

// From min to max, between neighbours as straight lines.
function paintBand(ctx, map, found, color) {
  const [X, Y] = map;
  ctx.fillStyle = color;
  let i = 0;
  while (i < found.n) {
    while (i < found.n && !Number.isFinite(found.min[i])) i++;
    const begin = i;
    while (i < found.n && Number.isFinite(found.min[i])) i++;
    if (i === begin) break;
    ctx.beginPath();
    for (let j = begin; j < i; j++) ctx.lineTo(X(found.x[j]), Y(found.max[j]));
    for (let j = i - 1; j >= begin; j--) ctx.lineTo(X(found.x[j]), Y(found.min[j]) + 1);
    ctx.closePath();
    ctx.fill();
  }
}

// A line through the means, or through all that a column holds, so that no sawtooth is lost.
function paintLine(ctx, map, found, color, width, whole, dash) {
  const [X, Y] = map;
  ctx.strokeStyle = color;
  ctx.lineWidth = width;
  ctx.lineJoin = "round";
  ctx.setLineDash(dash || []);
  ctx.beginPath();
  let open = false;
  for (let i = 0; i < found.n; i++) {
    if (!Number.isFinite(found.mean[i])) { open = false; continue; }
    const x = X(found.x[i]);
    const ys = whole ? [found.max[i], found.min[i]] : [found.mean[i]];
    for (const y of ys) {
      if (open) ctx.lineTo(x, Y(y)); else ctx.moveTo(x, Y(y));
      open = true;
    }
    if (found.n === 1) ctx.lineTo(x + 2 * width, Y(found.mean[i]));
  }
  ctx.stroke();
  ctx.setLineDash([]);
}

const SHAPES = {
  circle: (ctx, x, y, r) => ctx.arc(x, y, r, 0, 2 * Math.PI),
  diamond: (ctx, x, y, r) => {
    ctx.moveTo(x, y - r * 1.25); ctx.lineTo(x + r * 1.25, y); ctx.lineTo(x, y + r * 1.25);
    ctx.lineTo(x - r * 1.25, y); ctx.closePath();
  },
  square: (ctx, x, y, r) => ctx.rect(x - r, y - r, 2 * r, 2 * r),
  ring: (ctx, x, y, r) => ctx.arc(x, y, r, 0, 2 * Math.PI),
};

function paintMarks(ctx, map, points, color, shape, size) {
  const [X, Y] = map;
  const background = style("--panel");
  for (const [x, y] of points) {
    if (!Number.isFinite(y)) continue;
    ctx.beginPath();
    SHAPES[shape](ctx, X(x), Y(y), size);
    ctx.fillStyle = shape === "ring" ? background : color;
    ctx.fill();
    ctx.lineWidth = shape === "ring" ? size * 0.55 : size * 0.4;
    ctx.strokeStyle = shape === "ring" ? color : background;
    ctx.stroke();
  }
}

function paintRules(u, ctx, places, color, width, dash) {
  ctx.strokeStyle = color;
  ctx.lineWidth = width;
  ctx.setLineDash(dash || []);
  ctx.beginPath();
  for (const x of places) {
    const at = Math.round(toX(u, x)) + 0.5;
    ctx.moveTo(at, u.bbox.top); ctx.lineTo(at, u.bbox.top + u.bbox.height);
  }
  ctx.stroke();
  ctx.setLineDash([]);
}

// Small triangles at the edge beyond which a loss lies.
function paintEdges(u, ctx, places, color) {
  const r = 3 * DPR(), { top, height } = u.bbox;
  ctx.fillStyle = color;
  for (const [x, up] of places) {
    const at = toX(u, x), tip = up ? top + 1 : top + height - 1, base = tip + (up ? 2 : -2) * r;
    ctx.beginPath();
    ctx.moveTo(at, tip); ctx.lineTo(at + r, base); ctx.lineTo(at - r, base);
    ctx.closePath();
    ctx.fill();
  }
}

// Triangles at the top: losses that are not finite have no height.
function paintLost(u, ctx, places, color) {
  const r = 4 * DPR();
  ctx.fillStyle = color;
  for (const x of places) {
    const at = toX(u, x);
    ctx.beginPath();
    ctx.moveTo(at - r, u.bbox.top); ctx.lineTo(at + r, u.bbox.top);
    ctx.lineTo(at, u.bbox.top + 2 * r);
    ctx.closePath();
    ctx.fill();
    ctx.fillRect(at - 0.5 * DPR(), u.bbox.top, DPR(), u.bbox.height * 0.04);
  }
}
