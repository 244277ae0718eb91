"use strict";
// Draws what is told of a run. Whatever comes from outside becomes a text node, never markup.
(() => {
const told = JSON.parse(document.getElementById("told").textContent);
const PHASES = ["read", "call", "convert", "write", "other"];
const WORDS = {
  start: "until the first task of each worker", read: "reading and decoding the input", call: "in your function",
  convert: "making rows of what it gave", write: "writing rows", other: "in tasks, beside these",
  wait: "workers that had nothing to do",
};
const STATES = ["ok", "some records failed", "failed", "tried again", "died"];

// ---- Words and numbers

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const count = n => whole.format(n);
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const share = x => `${(100 * x).toFixed(x < 0.0995 && x > 0 ? 1 : 0)} %`;
function seconds(s) {
  if (s === 0) return "0 s";
  if (s < 0.00995) return `${(1000 * s).toFixed(s < 0.000995 ? 2 : 1)} ms`;
  if (s < 0.9995) return `${(1000 * s).toFixed(0)} ms`;
  if (s < 9.995) return `${s.toFixed(2)} s`;
  if (s < 119.5) return `${s.toFixed(1)} s`;
  if (s < 7170) return `${Math.floor(Math.round(s) / 60)} min ${String(Math.round(s) % 60).padStart(2, "0")} s`;
  return `${count(Math.floor(s / 3600))} h ${String(Math.floor(s % 3600 / 60)).padStart(2, "0")} min`;
}
const tick = s => seconds(s).replace(/\.(\d*?)0+(?= )/, (_, kept) => kept ? `.${kept}` : "");  // 1 s, not 1.00 s
function short(n) {
  const [scale, unit] = n >= 1e9 ? [1e9, "G"] : n >= 1e6 ? [1e6, "M"] : n >= 1e4 ? [1e3, "k"] : [1, ""];
  const value = n / scale;
  return (unit && value < 99.5 ? value.toPrecision(2).replace(/\.0$/, "") : count(value)) + unit;
}
function bytes(n) {
  if (n === null || n === undefined) return "unknown";
  const [scale, unit] = n >= 1e9 ? [1e9, "GB"] : n >= 1e6 ? [1e6, "MB"] : n >= 1e3 ? [1e3, "kB"] : [1, "B"];
  return `${(n / scale).toFixed(n / scale < 10 && scale > 1 ? 1 : 0)} ${unit}`;
}
const range = (first, last) => first === null || first === undefined ? "" :
  first === 0 && last === null ? "whole" : `${count(first)} to ${last === null ? "the end" : count(last)}`;
const ticks = (top, n) => {  // round values from 0 on, about n of them
  const step = [1, 2, 5, 10].map(f => f * 10 ** Math.floor(Math.log10(top / n || 1))).find(s => top / s <= n) || top || 1;
  return Array.from({length: Math.floor(top / step + 1e-9) + 1}, (_, i) => i * step);
};

// ---- Elements

function make(space, name, attributes, children) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "style") element.style.cssText = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(3)) if (child !== null && child !== undefined) element.append(child);
  return element;
}
const el = (name, attributes, ...children) => make(null, name, attributes, children);
const svg = (name, attributes, ...children) => make("http://www.w3.org/2000/svg", name, attributes, children);
const section = (title, note, ...children) =>
  el("section", {"aria-label": title}, el("h2", null, title), note ? el("p", {class: "note"}, note) : null, ...children);
const swatch = colour => el("span", {class: "swatch", style: `background: var(--${colour})`, "aria-hidden": "true"});
const legend = items => el("ul", {class: "legend"}, items.map(([mark, text]) => el("li", null, mark, text)));

function facts(pairs) {
  return el("dl", {class: "facts"}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
}

/** A table whose columns are [title, kind, cell of row, what to sort by]; kind is "number", "name" or "". */
function table(caption, columns, rows, {slim = false, sorts = false, most = Infinity} = {}) {
  const body = el("tbody");
  const fill = sorted => body.replaceChildren(...sorted.slice(0, most).map(row => el("tr", null,
    columns.map(([, kind, cell]) => el("td", {class: kind}, cell(row))))));
  const direction = {at: -1, sign: -1};
  const order = (at, head) => {
    const key = columns[at][3] || columns[at][2];
    direction.sign = direction.at === at ? -direction.sign : columns[at][1] === "number" ? -1 : 1;
    direction.at = at;
    head.closest("tr").querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction.sign > 0 ? "ascending" : "descending");
    const compare = (a, b) => a === b ? 0 : (a === null ? -Infinity : a) < (b === null ? -Infinity : b) ? -1 : 1;
    fill([...rows].sort((a, b) => direction.sign * compare(key(a), key(b))));
  };
  const heads = columns.map(([title, kind], at) => {
    const head = el("th", {class: kind === "name" ? "" : kind, scope: "col"});
    head.append(sorts ? el("button", {type: "button", onclick: () => order(at, head)}, title) : title);
    return head;
  });
  fill(rows);
  return el("div", {class: "scroll"}, el("table", {class: slim ? "slim" : null},
    caption ? el("caption", null, caption) : null, el("thead", null, el("tr", null, heads)), body));
}

const tip = document.getElementById("tip");
function showTip(x, y, title, rows) {
  tip.replaceChildren(el("b", null, title), el("table", null, el("tbody", null, rows.filter(row => row && row[1] !== "")
    .map(([name, value]) => el("tr", null, el("td", null, name), el("td", null, value))))));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 16 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 16}px`;
}
const hideTip = () => { tip.hidden = true; };
addEventListener("scroll", hideTip, {passive: true});
addEventListener("keydown", event => { if (event.key === "Escape") hideTip(); });

// ---- Time line: a row for each worker, drawn on a canvas

/** rows: names; bars: {track, start, seconds, parts: [[colour, seconds]...], high, under, title, about}; marks: {track, at, kind}. */
function timeline({label, rows, bars, marks, end}) {
  const high = rows.length <= 24 ? 20 : rows.length <= 64 ? 12 : 6;
  const canvas = el("canvas", {tabindex: "0", role: "img", "aria-label": `${label}. Arrow keys go from bar to bar.`});
  const view = {from: 0, to: end, chosen: -1, drag: null};
  const order = bars.map((_, at) => at).sort((a, b) => bars[a].track - bars[b].track || bars[a].start - bars[b].start);
  const place = new Map(order.map((bar, at) => [bar, at]));
  const byTrack = rows.map(() => []);
  for (const at of order) byTrack[bars[at].track].push(at);
  const top = 6, foot = 22;
  const gutter = () => canvas.clientWidth < 520 ? 58 : 108;
  const x = time => gutter() + (time - view.from) / (view.to - view.from) * (canvas.clientWidth - gutter() - 8);
  const timeAt = px => view.from + (px - gutter()) / (canvas.clientWidth - gutter() - 8) * (view.to - view.from);

  function draw() {
    const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = top + rows.length * high + foot;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colours = {};
    const colour = name => colours[name] = colours[name] || style.getPropertyValue(`--${name}`).trim();
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "middle";
    const axis = top + rows.length * high;
    for (const time of ticks(view.to - view.from, width < 520 ? 4 : 8)) {
      pen.fillStyle = colour("rule");
      pen.fillRect(Math.round(x(view.from + time)), top, 1, axis - top);
      pen.fillStyle = colour("soft");
      pen.textAlign = time ? "center" : "left";
      const text = tick(view.from + time);
      const left = x(view.from + time);
      if (left + pen.measureText(text).width / 2 < width) pen.fillText(text, left, axis + 12);
    }
    const every = high >= 11 ? 1 : Math.ceil(12 / high);
    pen.textAlign = "right";
    rows.forEach((name, row) => {
      const y = top + row * high;
      pen.fillStyle = colour("idle");
      pen.fillRect(gutter(), y + 1, width - gutter() - 8, high - 2);
      if (row % every) return;
      pen.fillStyle = colour("soft");
      pen.fillText(cut(pen, name, gutter() - 8), gutter() - 6, y + high / 2);
    });
    pen.save();
    pen.beginPath();
    pen.rect(gutter(), 0, width - gutter() - 8, height);
    pen.clip();
    for (const bar of bars) {
      if (bar.start > view.to || bar.start + bar.seconds < view.from) continue;
      let left = x(bar.start);
      const y = top + bar.track * high + 1, tall = high - 2;
      const whole = Math.max(1, x(bar.start + bar.seconds) - left - (bar.high ? 0 : 0.5));
      const total = bar.parts.reduce((sum, [, part]) => sum + part, 0) || 1;
      let up = y + tall;
      for (const [name, part] of bar.parts) {
        if (!part) continue;
        pen.fillStyle = colour(name);
        if (bar.high) {  // a bin: as high as the share of its time
          const size = Math.min(1, part / bar.seconds) * tall;
          pen.fillRect(left, up - size, whole + 0.5, size);
          up -= size;
        } else {
          pen.fillRect(left, y, Math.max(0.5, whole * part / total), tall);
          left += whole * part / total;
        }
      }
      if (bar.under) {
        pen.fillStyle = colour(bar.under);
        pen.fillRect(x(bar.start), y + tall - 3, Math.max(2, whole), 3);
      }
    }
    for (const mark of marks) drawMark(pen, mark, x(mark.at), top + mark.track * high + high / 2, colour, Math.min(5, high / 2.4));
    if (view.chosen >= 0) {
      const bar = bars[view.chosen];
      pen.strokeStyle = colour("text");
      pen.lineWidth = 1.5;
      pen.strokeRect(x(bar.start) - 1, top + bar.track * high + 0.5, Math.max(3, x(bar.start + bar.seconds) - x(bar.start) + 2), high - 1);
    }
    if (view.drag) {
      pen.fillStyle = colour("strong");
      pen.globalAlpha = 0.15;
      pen.fillRect(Math.min(view.drag.from, view.drag.to), top, Math.abs(view.drag.to - view.drag.from), axis - top);
    }
    pen.restore();
  }

  function hit(event) {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - top) / high), time = timeAt(event.clientX - box.left);
    const slack = 2 * (view.to - view.from) / canvas.clientWidth;
    let best = -1, gap = slack;
    for (const at of byTrack[row] || []) {
      const bar = bars[at], away = Math.max(bar.start - time, time - bar.start - bar.seconds);
      if (away <= 0) best = at, gap = 0;  // the last one that holds it
      else if (away < gap) best = at, gap = away;
    }
    const near = marks.find(mark => mark.track === row && Math.abs(mark.at - time) < 2.5 * slack && mark.title);
    return {bar: best, mark: near};
  }

  function choose(at, px, py) {
    view.chosen = at;
    draw();
    if (at < 0) return hideTip();
    const bar = bars[at];
    showTip(px, py, bar.title(), bar.about());
  }

  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    if (view.drag) {
      view.drag.to = event.clientX - box.left;
      return draw();
    }
    const {bar, mark} = hit(event);
    if (mark && (bar < 0 || mark.kind === "death")) {
      view.chosen = -1;
      return showTip(event.clientX, event.clientY, mark.title(), mark.about());
    }
    choose(bar, event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", () => { if (!view.drag) choose(-1); });
  canvas.addEventListener("pointerdown", event => {
    if (event.pointerType !== "mouse") return;
    const at = event.clientX - canvas.getBoundingClientRect().left;
    view.drag = {from: at, to: at};
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => {
    if (!view.drag) return;
    const [from, to] = [view.drag.from, view.drag.to].sort((a, b) => a - b).map(timeAt);
    const moved = Math.abs(view.drag.to - view.drag.from) > 8;
    view.drag = null;
    if (moved) { view.from = Math.max(0, from); view.to = Math.min(end, to); }
    draw();
  });
  const reset = () => { view.from = 0; view.to = end; draw(); };
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    const row = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (event.key === "Home") return reset();
    if (!bars.length || !(step || row)) return;
    event.preventDefault();
    let at = view.chosen < 0 ? 0 : place.get(view.chosen);
    if (view.chosen >= 0 && step) at = Math.max(0, Math.min(order.length - 1, at + step));
    if (view.chosen >= 0 && row) {
      const bar = bars[view.chosen];
      let track = bar.track + row;
      while (byTrack[track] && !byTrack[track].length) track += row;
      if (!byTrack[track]) return;
      const near = byTrack[track].reduce((a, b) => Math.abs(bars[b].start - bar.start) < Math.abs(bars[a].start - bar.start) ? b : a);
      at = place.get(near);
    }
    const box = canvas.getBoundingClientRect(), bar = bars[order[at]];
    choose(order[at], box.left + x(bar.start), box.top + top + (bar.track + 1) * high);
  });
  canvas.addEventListener("blur", () => choose(-1));
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return canvas;
}

function drawMark(pen, mark, x, y, colour, size) {
  pen.strokeStyle = pen.fillStyle = colour(mark.kind === "death" ? "bad" : "text");
  pen.lineWidth = 2;
  pen.beginPath();
  if (mark.kind === "death") {
    pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size);
    pen.moveTo(x + size, y - size); pen.lineTo(x - size, y + size);
    pen.stroke();
  } else {
    pen.moveTo(x, y - size * 0.8); pen.lineTo(x + size * 0.8, y + size * 0.7); pen.lineTo(x - size * 0.8, y + size * 0.7);
    pen.closePath();
    pen.fill();
    pen.strokeStyle = colour("ground");
    pen.lineWidth = 0.8;
    pen.stroke();
  }
}

function cut(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let kept = text;
  while (kept.length > 1 && pen.measureText(`\u2026${kept}`).width > room) kept = kept.slice(1);
  return `\u2026${kept}`;
}

// ---- Charts

const SPACE = {width: Math.max(280, Math.min(520, innerWidth - 28)), height: 150, left: 52, right: 12, top: 10, bottom: 24};

/** An area over time; points are [from, to, value]. */
function overTime({label, points, end, unit}) {
  const {width, height, left, right, top, bottom} = SPACE;
  const most = Math.max(...points.map(point => point[2]), 1e-9);
  const x = time => left + time / end * (width - left - right);
  const y = value => height - bottom - value / most * (height - top - bottom);
  let path = "", before = null;
  for (const [from, to, value] of points) {
    if (before === null || from > before + 1e-9) path += `${before === null ? "M" : `L${x(before).toFixed(1)} ${y(0).toFixed(1)}L`}${x(from).toFixed(1)} ${y(0).toFixed(1)}`;
    path += `L${x(from).toFixed(1)} ${y(value).toFixed(1)}L${x(Math.min(to, end)).toFixed(1)} ${y(value).toFixed(1)}`;
    before = Math.min(to, end);
  }
  if (before !== null) path += `L${x(before).toFixed(1)} ${y(0).toFixed(1)}`;
  const hover = event => {
    const box = chart.getBoundingClientRect();
    const time = ((event.clientX - box.left) * width / box.width - left) / (width - left - right) * end;
    const point = points.find(([from, to]) => from <= time && time < to);
    if (time < 0 || time > end) return hideTip();
    showTip(event.clientX, event.clientY, unit(point ? point[2] : 0), [["at", seconds(Math.max(0, time))]]);
  };
  const chart = svg("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, onpointermove: hover, onpointerleave: hideTip},
    ticks(most, 3).map(value => [
      svg("line", {class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value)}),
      svg("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end"}, unit(value, true))]),
    ticks(end, 5).map(time => svg("text", {x: x(time), y: height - 6, "text-anchor": time ? "middle" : "start"}, tick(time))),
    svg("path", {class: "area", d: path}), svg("path", {class: "line", d: path}));
  return chart;
}

function histogram(buckets) {
  const {width, height, left, right, top, bottom} = SPACE;
  const factor = 10 ** 0.2, counts = new Map(buckets.map(([low, n]) => [Math.round(5 * Math.log10(low)), n]));
  const first = Math.min(...counts.keys()), last = Math.max(...counts.keys()), most = Math.max(...counts.values());
  const span = last - first + 1, room = Math.min(46, (width - left - right) / span);
  const y = n => height - bottom - n / most * (height - top - bottom);
  const columns = [];
  for (let step = first; step <= last; step++) {
    const n = counts.get(step) || 0, low = 10 ** (step / 5), at = left + (step - first) * room;
    const words = `${seconds(low)} to ${seconds(low * factor)}`;
    if (n) columns.push(svg("rect", {class: "column", x: at + 1, y: y(n), width: room - 2, height: Math.max(1, height - bottom - y(n)),
      onpointermove: event => showTip(event.clientX, event.clientY, plural(n, "task"), [["took", words]]), onpointerleave: hideTip}));
    if (span <= 8 || step % 5 === 0) columns.push(svg("text", {x: at, y: height - 6, "text-anchor": "middle"}, tick(low)));
  }
  return svg("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `How many tasks took how long: ${buckets.map(([low, n]) => `${count(n)} from ${seconds(low)}`).join(", ")}`},
    ticks(most, 3).filter(n => n === Math.round(n)).map(n => [svg("line", {class: "grid", x1: left, x2: width - right, y1: y(n), y2: y(n)}),
      svg("text", {x: left - 6, y: y(n) + 4, "text-anchor": "end"}, short(n))]), columns);
}

// ---- Parts that jobs and flows share

function heading(title, lines, good, state) {
  return el("header", null, el("h1", null, title),
    lines.filter(Boolean).map(line => el("p", null, line)),
    el("p", null, el("span", {class: good ? "state" : "state bad"}, state),
      ` \u00b7 ${new Date(1000 * (told.timeline || told).began).toLocaleString("en-GB", {dateStyle: "medium", timeStyle: "medium"})}`));
}

function numbers(items) {
  return el("dl", {class: "numbers"}, items.filter(Boolean).map(([name, value, unit, under, bad]) =>
    el("div", {class: bad ? "bad" : null}, el("dt", null, name), el("dd", null, value, unit ? el("small", null, ` ${unit}`) : null,
      el("small", {class: "under"}, under || "\u00a0")))));
}

function errors(groups, others) {
  if (!groups.length) return null;
  const total = groups.reduce((sum, group) => sum + group.count, 0) + others;
  return section("What failed", `${plural(total, "row")} of the error table, by type, line that raised, and message; the first few of each.`,
    groups.map(group => el("details", {class: "error"},
      el("summary", null, el("span", {class: "count"}, count(group.count)),
        el("span", null, el("b", null, group.error_type), ` in ${group.phase}`, group.where ? el("em", null, ` \u00b7 ${group.where}`) : null,
          el("br"), el("em", null, clip(group.examples[0].message, 160)))),
      group.examples.map(example => el("div", {class: "example"},
        el("p", null, [example.step, example.source, example.record === null ? "" : `record ${count(example.record)}`,
          range(example.start, example.stop) && `bytes or rows ${range(example.start, example.stop)}`,
          plural(example.attempts, "attempt"), example.worker].filter(Boolean).join(" \u00b7 ")),
        example.payload ? el("pre", null, example.payload) : null,
        el("pre", null, example.traceback || `${group.error_type}: ${example.message}`))))),
    others ? el("p", {class: "note"}, `and ${plural(others, "row")} of other kinds`) : null);
}
const clip = (text, most) => text.length > most ? `${text.slice(0, most)}\u2026` : text;

function surroundings() {
  const here = told.environment;
  return [["batchflow", here.batchflow], ["Python", here.python], ["platform", here.platform], ["driver", `${here.host}, ${plural(here.cpus, "core")}, ${bytes(here.memory)}`],
    ["executor", `${told.executor || "none"}, ${plural(told.slots, "slot")}`], ...Object.entries(here.versions)];
}

// ---- A job

function job() {
  const time = told.timeline, plan = told.plan;
  const column = Object.fromEntries(time.columns.map((name, at) => [name, at]));
  const lap = row => Object.fromEntries(time.columns.map((name, at) => [name, row[at]]));
  const done = told.rows_in - told.before;
  const rate = told.seconds ? done / told.seconds : 0;
  const hosts = new Set(time.workers.map(worker => worker.slice(0, worker.lastIndexOf(":"))));
  const names = time.workers.map(worker => hosts.size === 1 && worker.includes(":") ? worker.slice(worker.lastIndexOf(":") + 1) : worker || "unknown");
  const where = one => `${time.sources[one.source] || "records in memory"}${one.spans > 1 ? ` and ${plural(one.spans - 1, "more input")}` : ""}`;
  const about = one => [["range", one.spans > 1 ? "" : range(one.first, one.last)], ["worker", time.workers[one.track] || "unknown"],
    ["time", `${seconds(one.seconds)}, from ${seconds(one.start)} on`],
    ["phases", PHASES.slice(0, 4).filter(name => one[name] > 0).map(name => `${name} ${seconds(one[name])}`).join(", ")],
    ["records", one.records || one.rows ? `${count(one.records)} in, ${plural(one.rows, "row")} out${one.failed ? `, ${count(one.failed)} failed` : ""}` : ""],
    ["attempt", `${count(one.attempt)}${one.retries ? `, ${plural(one.retries, "call")} tried again` : ""}`], ["ended", STATES[one.state]], ["isolation", one.isolating ? "to find a record that failed" : ""]];
  const name = clip(plan.function.replace(/^__main__\./, ""), 300);
  const source = plan.in_memory ? `${plan.size === null ? "records as they come" : plural(plan.size, "record")} in memory` : `${plural(plan.inputs, `${plan.source} file`)}, ${bytes(plan.size)}`;

  const parts = [
    heading(name, [`${source} \u2192 ${plan.output || "a result in memory"}`], told.complete && !told.failed, told.complete ? told.failed ? `ended, ${plural(told.failed, "error")}` : "complete" : "stopped before its end"),
    numbers([
      ["records in", count(told.rows_in), "", told.before ? `${count(told.before)} by earlier runs` : ""],
      ["rows out", count(told.rows_out)],
      ["failed", count(told.failed), "", told.failed && told.rows_in ? share(told.failed / told.rows_in) : "", told.failed > 0],
      ["retries", count(told.retries), "", told.isolation_tasks ? `${count(told.isolation_tasks)} to isolate a record` : ""],
      ["time", seconds(told.seconds), "", plural(told.chunks, "chunk")],
      ["rate", short(rate), "/s", `${bytes(told.seconds ? told.bytes_read / told.seconds : 0)}/s read`],
      ["speed-up", told.speedup.toFixed(1), "\u00d7", `on ${plural(told.slots, "slot")}${told.over_one ? `, ${told.over_one.toFixed(1)}\u00d7 one alone` : ""}`],
      ["memory", bytes(told.peak_memory), "", "largest worker"],
    ]),
    lost(),
    lanes(),
    overTimes(),
    time.slowest.length ? section("Slowest chunks", null, table("", [
      ["seconds", "number", one => seconds(one.seconds), one => one.seconds], ["source", "name", where], ["range", "number", one => one.spans > 1 ? "" : range(one.first, one.last), one => one.first],
      ["records", "number", one => count(one.records), one => one.records], ...PHASES.slice(0, 4).map(phase => [phase, "number", one => one[phase] ? seconds(one[phase]) : "", one => one[phase]]),
      ["attempt", "number", one => one.attempt], ["worker", "", one => names[one.track] || "other"],
    ], time.slowest.map(lap), {sorts: true})) : null,
    errors(told.errors.groups, told.errors.others),
    section("Plan and environment", null, el("div", {class: "two"},
      facts([["function", plan.function], ["called with", `one ${plan.per} at a time`], ["input", source], ["first inputs", plan.first.map((uri, at) => [at ? el("br") : null, uri])],
        ["output", plan.output ? `${plan.output} (${plan.format})` : "in memory"],
        ...Object.entries(plan.limits).map(([key, value]) => [`limit of ${key}`, value]), ...Object.entries(plan.per_task).map(([key, value]) => [`${key} per task`, value]),
        ...Object.entries(plan.options).map(([key, value]) => [key, value])]),
      facts([...surroundings(), ["messages", told.logs]]))),
  ];
  return parts;

  function lost() {
    const spent = told.time && Object.keys(told.time).length ? Object.entries(told.time) : [...Object.entries(told.phases),
      ["other", Math.max(0, told.task_seconds - Object.values(told.phases).reduce((a, b) => a + b, 0))],
      ["wait", Math.max(0, told.slots * told.seconds - told.task_seconds)]];
    const rows = spent.filter(([, value]) => value > 0), total = rows.reduce((sum, [, value]) => sum + value, 0);
    if (!total) return null;
    const colour = phase => phase === "start" ? "start" : phase in WORDS ? phase : "other";
    return section("Where the time went", `${seconds(total)} of worker time: ${seconds(told.seconds)} on ${plural(told.slots, "slot")}.`,
      el("div", {class: "bar", role: "img", "aria-label": rows.map(([phase, value]) => `${phase} ${share(value / total)}`).join(", ")},
        rows.map(([phase, value]) => el("span", {class: phase === "wait" ? "hatch" : null, style: `width: ${100 * value / total}%${phase === "wait" ? "" : `; background: var(--${colour(phase)})`}`,
          onpointermove: event => showTip(event.clientX, event.clientY, `${phase}: ${share(value / total)}`, [["", `${seconds(value)} ${WORDS[phase] || ""}`]]), onpointerleave: hideTip}))),
      el("div", {class: "two"}, table("", [["", "word", ([phase]) => [phase === "wait" ? el("span", {class: "swatch hatch"}) : swatch(colour(phase)), phase]], ["share", "number", ([, value]) => share(value / total)],
        ["seconds", "number", ([, value]) => seconds(value)], ["", "", ([phase]) => WORDS[phase] || ""]], rows, {slim: true}),
        time.durations.length ? chart("Tasks by how long they took", histogram(time.durations)) : null),
      told.advice && told.advice.length ? [el("h3", {style: "margin-top: 14px"}, "What would help"), el("ul", {class: "advice"}, told.advice.map(line => el("li", null, line)))] : null);
  }

  function lanes() {
    const rows = [...names], busy = {}, tasks = {};
    if (time.others) rows.push("others");
    let bars, note;
    const first = rows.map(() => Infinity);
    if (time.tasks) {
      bars = time.tasks.map(row => {
        const one = lap(row), inside = PHASES.slice(0, 4).reduce((sum, phase) => sum + one[phase], 0);
        busy[one.track] = (busy[one.track] || 0) + one.seconds;
        tasks[one.track] = (tasks[one.track] || 0) + 1;
        return {track: one.track, start: one.start, seconds: one.seconds, under: one.state > 1 ? "bad" : null,
          parts: one.isolating ? [["isolation", 1]] : [...PHASES.slice(0, 4).map(phase => [phase, one[phase]]), ["other", Math.max(0, one.seconds - inside)]],
          isolating: one.isolating,
          title: () => where(one), about: () => about(one)};
      });
      note = "Each bar is a task. Within it the phases stand side by side by their share, though a worker goes from block to block.";
    } else {
      const width = time.bins.width;
      bars = Object.entries(time.bins.tracks).flatMap(([track, cells]) => cells.map(([at, ...spent]) => {
        const n = spent.pop(), sum = spent.reduce((a, b) => a + b, 0);
        busy[track] = (busy[track] || 0) + sum;
        tasks[track] = (tasks[track] || 0) + n;
        return {track: +track, start: at * width, seconds: width, high: true, parts: PHASES.map((phase, i) => [phase, spent[i]]),
          title: () => `${seconds(at * width)} to ${seconds((at + 1) * width)}`,
          about: () => [["worker", time.workers[track] || "others"], ["tasks", n < 10 ? n.toFixed(1) : count(n)], ["busy", share(Math.min(1, sum / width))],
            ...PHASES.map((phase, i) => [phase, spent[i] ? share(spent[i] / width) : ""])]};
      }));
      note = `Too many tasks to draw one by one: each column is ${seconds(width)} of a worker, as high as it was busy.`;
    }
    const marks = time.marks.map(([at, ...row]) => {
      const one = lap(row);
      return {track: Math.min(one.track, rows.length - 1), at: one.state === 4 ? at : one.start, kind: one.state === 4 ? "death" : one.attempt > 1 || one.retries ? "try" : "",
        title: () => `${STATES[one.state] === "died" ? "died at " : ""}${where(one)}`, about: () => about(one)};
    }).filter(mark => mark.kind);
    bars.forEach(bar => { first[bar.track] = Math.min(first[bar.track], bar.start); });
    const deaths = marks.filter(mark => mark.kind === "death").length, tries = marks.length - deaths;
    const total = Object.values(tasks).reduce((a, b) => a + b, 0);
    const summary = `Time line of ${plural(rows.length, "worker")}, ${plural(Math.round(total), "task")}, ${plural(deaths, "death")}`;
    return section("Time line", `${note} Drag to look closer, double-click to see all.`,
      legend([...PHASES.map(phase => [swatch(phase), phase]),
        ...(bars.some(bar => bar.isolating) ? [[swatch("isolation"), "isolating a record"]] : []),
        ...(tries ? [["\u25b2 ", "a further try"]] : []), ...(deaths ? [["\u2715 ", "a worker died"]] : []),
        ...(bars.some(bar => bar.under) ? [[el("span", {class: "swatch", style: "height: 3px; vertical-align: 3px; background: var(--bad)"}), "failed as a whole"]] : [])]),
      timeline({label: summary, rows, bars, marks, end: Math.max(told.seconds, 1e-3)}),
      time.unmarked ? el("p", {class: "note"}, `${plural(time.unmarked, "further mark")} left out`) : null,
      el("details", null, el("summary", null, "Workers as a table"), table(summary, [
        ["worker", "", at => time.workers[at] || rows[at]], ["tasks", "number", at => count(tasks[at] || 0), at => tasks[at] || 0],
        ["busy", "number", at => seconds(busy[at] || 0), at => busy[at] || 0], ["share of the time", "number", at => share((busy[at] || 0) / told.seconds), at => busy[at] || 0],
        ["first task at", "number", at => first[at] < Infinity ? seconds(first[at]) : "", at => first[at]],
      ], rows.map((_, at) => at), {slim: true, sorts: true})));
  }

  function overTimes() {
    const width = time.flow.width, end = Math.max(told.seconds, 1e-3);
    const join = Math.max(1, Math.ceil(time.flow.rows.length / 80)), sums = new Map();
    for (const [at, records, , nbytes] of time.flow.rows) {
      const slot = Math.floor(at / join), sum = sums.get(slot) || [0, 0];
      sums.set(slot, [sum[0] + records, sum[1] + nbytes]);
    }
    const points = which => [...sums].sort(([a], [b]) => a - b).map(([slot, sum]) =>
      [slot * join * width, (slot + 1) * join * width, sum[which] / Math.max(1e-9, Math.min(join * width, end - slot * join * width))]);
    const memory = time.memory.map(([at, value], i) => [i ? at : 0, i + 1 < time.memory.length ? time.memory[i + 1][0] : end, value]);
    const charts = [];
    const rates = points(0), reads = points(1);
    if (rates.length) charts.push(chart("Records per second", overTime({label: `Records per second over time, at most ${count(Math.max(...rates.map(p => p[2])))}`, points: rates, end, unit: (n, axis) => axis ? short(n) : `${short(n)} records/s`})));
    else if (reads.some(point => point[2])) charts.push(chart("Bytes read per second", overTime({label: `Bytes read per second over time, at most ${bytes(Math.max(...reads.map(p => p[2])))}`, points: reads, end, unit: (n, axis) => axis ? bytes(n) : `${bytes(n)}/s`})));
    if (memory.length) charts.push(chart("Memory of the largest worker so far", overTime({label: `Memory of the largest worker over time, ${bytes(told.peak_memory)} at last`, points: memory, end, unit: n => bytes(n)})));
    if (time.slots.length > 1) {
      const points = time.slots.map(([at, slots], i) => [i ? at : 0, i + 1 < time.slots.length ? time.slots[i + 1][0] : end, slots]);
      charts.push(chart("Tasks side by side at most", overTime({label: `Slots over time, ${told.slots} at most`, points, end, unit: (n, axis) => axis ? short(n) : plural(n, "slot")})));
    }
    return charts.length ? section("Over time", null, el("div", {class: "two"}, charts)) : null;
  }
}
const chart = (title, drawing) => el("div", null, el("h3", null, title), drawing);

// ---- A flow

function flow() {
  const colours = {succeeded: "good", failed: "bad", cached: "cached", skipped: "other", cancelled: "other"};
  const critical = new Set(told.critical);
  const counts = {};
  told.counts.forEach(([state, n]) => { counts[state] = n; });
  const about = step => [["took", step.start === null ? "" : `${seconds(step.end - step.start)}, from ${seconds(step.start)} on`], ["worker", step.worker], ["attempts", count(step.attempts)],
    ["ended", step.state], ["why", clip(step.why, 300)], ["", critical.has(step.number) ? "on the critical path" : ""]];
  const bars = told.steps.filter(step => step.start !== null && step.end !== null).map(step => ({
    track: step.track, start: step.start, seconds: step.end - step.start, parts: [[critical.has(step.number) ? "strong" : colours[step.state] || "other", 1]],
    under: step.state === "failed" ? "bad" : null, title: () => step.name, about: () => about(step)}));
  const marks = told.steps.filter(step => step.attempts > 1 && step.start !== null).map(step => ({track: step.track, at: step.start, kind: "try", title: () => step.name, about: () => about(step)}));
  const graph = document.getElementById("graph").content.cloneNode(true);
  const failed = (counts.failed || 0) > 0;
  const complete = !counts.cancelled;
  return [
    heading(told.flow, [`${plural(told.total, "step")} on ${plural(told.slots, "slot")} (${told.executor})`], complete && !failed, complete ? failed ? "ended, some steps failed" : "complete" : "stopped before its end"),
    numbers([["steps", count(told.total)], ...told.counts.map(([state, n]) => [state, count(n), "", "", state === "failed"]),
      ["time", seconds(told.seconds)], ["work", seconds(told.work), "", told.seconds ? `${(told.work / told.seconds).toFixed(1)} at once` : ""],
      ["critical path", seconds(told.critical_seconds), "", told.seconds ? `${share(told.critical_seconds / told.seconds)} of the time` : ""]]),
    section("Graph", "What waits for what; thick lines are the critical path: what the time hung on.", el("div", {class: "graph", tabindex: "0", "aria-label": "graph of the flow"}, graph)),
    told.story ? section("What the time went into", null, el("pre", null, told.story)) : null,
    bars.length ? section("Time line", "Each bar is a step, on the worker that did it; whole jobs have rows of their own. Drag to look closer, double-click to see all.",
      legend([[swatch("strong"), "on the critical path"], ...["succeeded", "failed", "cached"].filter(state => counts[state]).map(state => [swatch(colours[state]), state]), ...(marks.length ? [["\u25b2 ", "more than one try"]] : [])]),
      timeline({label: `Time line of ${plural(told.total, "step")}`, rows: told.tracks, bars, marks, end: Math.max(told.seconds, 1e-3)})) : null,
    section("Steps", told.total > told.steps.length ? `The ${count(told.steps.length)} that failed or took longest, of ${count(told.total)}.` : null, table("", [
      ["step", "name", step => step.name], ["ended", "", step => step.state], ["took", "number", step => step.start === null ? "" : seconds(step.end - step.start), step => step.start === null ? null : step.end - step.start],
      ["began at", "number", step => step.start === null ? "" : seconds(step.start), step => step.start], ["attempts", "number", step => step.attempts], ["records in", "number", step => step.rows_in === null ? "" : count(step.rows_in), step => step.rows_in],
      ["failed", "number", step => step.failed ? count(step.failed) : "", step => step.failed], ["worker", "", step => step.worker], ["why", "", step => clip(step.why, 200)],
    ], told.steps, {sorts: true, most: 1000})),
    errors(told.errors.groups, told.errors.others),
    section("Environment", null, facts(surroundings())),
  ];
}

const main = document.getElementById("main");
main.append(...(told.timeline ? job() : flow()).filter(Boolean), el("footer", null, `Made by batchflow ${told.environment.batchflow}. This file loads nothing from anywhere.`));
document.documentElement.dataset.ready = "yes";
})();
