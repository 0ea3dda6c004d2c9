// Shows GET /live once a second. What others have written (names of models, tenants, labels) gets into
// the page as text only. Rows stay the same elements and are changed in place, so that a fleet of a
// thousand costs little, and focus and selection stay where they are.
"use strict";

const PERIOD_MS = 1000;
const PATIENCE_MS = 5000;
const TOKEN_KEY = "llmd-admin-token";
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const known = (value, format) => (value === null ? "–" : format(value));
const rate = (value) => (value < 100 ? tenth : whole).format(value);
const milliseconds = (value) => (value < 10 ? tenth : whole).format(value);

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(name, className = "") {
  const node = document.createElement(name);
  node.className = className;
  return node;
}

// --- cells: each is made once, and given a value each time ------------------------------------------

const plain = (text) => (cell) => (row) => {
  const said = text(row);
  setText(cell, said);
  if (cell.classList.contains("name")) cell.title = said;
};

// A text, and beside it what is less important.
const annotated = (text, note) => (cell) => {
  const [main, aside] = [element("span"), element("small")];
  cell.append(main, aside);
  return (row) => {
    setText(main, text(row));
    setText(aside, note(row));
    cell.title = `${text(row)} ${note(row)}`.trim();
  };
};

const chip = (text, kind, note) => (cell) => {
  const [mark, aside] = [element("span", "chip"), element("small")];
  cell.append(mark, aside);
  return (row) => {
    setText(mark, text(row));
    setText(aside, note(row));
    mark.className = `chip ${kind(row)}`;
  };
};

const meter = (share, text, note) => (cell) => {
  const [box, track, fill, label, aside] =
    [element("span", "meter"), element("span", "track"), element("i"), element("span"), element("small")];
  track.append(fill);
  box.append(track, label);
  cell.append(box, aside);
  return (row) => {
    const part = share(row);
    fill.style.width = `${100 * Math.min(1, Math.max(0, part ?? 0))}%`;
    setText(label, text(row));
    setText(aside, note(row));
  };
};

// --- tables -----------------------------------------------------------------------------------------

class Table {
  constructor(id, columns) {
    this.columns = columns;
    this.body = byId(id).tBodies[0];
    this.rows = new Map();
    this.head = byId(id).tHead.insertRow();
    columns.forEach((column, at) => {
      const cell = element("th", column.kind ?? "");
      cell.scope = "col";
      if (column.order) {
        const button = element("button");
        button.type = "button";
        button.textContent = column.title;
        button.addEventListener("click", () => this.sortBy(at));
        cell.append(button);
      } else {
        cell.textContent = column.title;
      }
      this.head.append(cell);
    });
  }

  row(key) {
    let row = this.rows.get(key);
    if (!row) {
      const node = element("tr");
      const show = this.columns.map((column) => {
        const cell = element("td", column.kind ?? "");
        node.append(cell);
        return column.cell(cell);
      });
      row = { node, show };
      this.rows.set(key, row);
    }
    return row;
  }

  sortBy(at) {
    const isSame = this.sorted?.at === at;
    this.sorted = { at, sign: isSame ? -this.sorted.sign : 1 };
    [...this.head.cells].forEach((cell, index) => {
      cell.ariaSort = index === at ? (this.sorted.sign > 0 ? "ascending" : "descending") : null;
    });
    this.changed?.();
  }

  inOrder(values) {
    if (!this.sorted) return values;
    const { at, sign } = this.sorted;
    const { order } = this.columns[at];
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return values.toSorted((a, b) => sign * compare(order(a), order(b)));
  }

  // Makes the rows those of `values`, in their order.
  show(values, keyOf) {
    const keys = new Set(values.map(keyOf));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.node.remove();
        this.rows.delete(key);
      }
    }
    let next = this.body.firstElementChild;
    values.forEach((value, at) => {
      const { node, show } = this.row(keyOf(value, at));
      for (const cell of show) cell(value);
      if (node === next) next = next.nextElementSibling;
      else this.body.insertBefore(node, next);
    });
  }
}

const STATES = {
  up: "good", trial: "warn", draining: "", cordoned: "", joining: "warn", unreachable: "bad", ejected: "bad",
};
const FATES = { running: "", answered: "good", failed: "bad", outrun: "", left: "warn" };
const address = (it) => it.url.replace(/^http:\/\//, "");
const where = (it) => (it.dp_rank > 0 ? `${address(it)} rank ${it.dp_rank}` : address(it));
const labelsOf = (it) => Object.entries(it.labels).map(([name, value]) => `${name}=${value}`).join(" ");
// Those that need somebody's eye come first.
const severity = (it) => ({ bad: 0, warn: 1, "": 2, good: 3 })[STATES[it.state]];

function troubles(it) {
  const drift = it.latency_drift === null ? "" : `×${tenth.format(it.latency_drift)} as slow`;
  const failures = it.failures > 0 ? `${whole.format(it.failures)} failures` : "";
  return [failures, drift].filter(Boolean).join(", ");
}

function blocksOf({ held_blocks: held }) {
  const tiers = [["gpu", held.gpu], ["cpu", held.cpu], ["disk", held.storage], ["shared", held.remote],
    ["believed", held.believed]];
  const some = tiers.filter(([, blocks]) => blocks > 0);
  return some.map(([tier, blocks]) => `${whole.format(blocks)} ${tier}`).join(" · ") || "–";
}
const blocksIn = (it) => Object.values(it.held_blocks).reduce((sum, blocks) => sum + blocks, 0);
const number = (title, value) => ({
  title, kind: "number", order: (it) => value(it) ?? -1, cell: plain((it) => known(value(it), whole.format)),
});

const endpoints = new Table("endpoints", [
  { title: "Engine", kind: "name", order: where, cell: annotated(where, labelsOf) },
  { title: "State", order: severity, cell: chip((it) => it.state, (it) => STATES[it.state], troubles) },
  { title: "Model", kind: "name", order: (it) => it.model, cell: plain((it) => it.model || "–") },
  number("In flight", (it) => it.inflight_requests),
  number("Waiting there", (it) => it.waiting_requests),
  {
    title: "KV in use", order: (it) => it.kv_usage ?? -1,
    cell: meter((it) => it.kv_usage, (it) => known(it.kv_usage, percent.format), () => ""),
  },
  { title: "Cached blocks", kind: "number", order: blocksIn, cell: plain(blocksOf) },
  number("To prefill", (it) => it.pending_prefill_tokens),
  number("Decoding", (it) => it.active_decode_tokens),
]);

function expected(it) {
  if (it.predicted_ttft_ms === null && it.ttft_ms === null) return "–";
  const [before, after] = [it.predicted_ttft_ms, it.ttft_ms].map((ms) => known(ms, milliseconds));
  return `${before} → ${after} ms`;
}

function offBy(it) {
  if (it.predicted_ttft_ms === null || it.ttft_ms === null || it.predicted_ttft_ms === 0) return "";
  const by = Math.round(100 * (it.ttft_ms / it.predicted_ttft_ms - 1));
  return `${by < 0 ? "−" : "+"}${whole.format(Math.abs(by))} %`;
}

function why(it) {
  const scores = it.scores.map((score) => `${score.name.replace(/-scorer$/, "")} ${score.value.toFixed(2)} ×${score.weight}`);
  const held = it.held_ms >= 1 ? `held ${milliseconds(it.held_ms)} ms, ` : "";
  return `${held}${it.profile}, of ${it.candidates}: ${scores.join(" · ") || "no scores"}`;
}

const elsewhere = (it) =>
  it.best_matched_tokens > it.matched_tokens ? `${whole.format(it.best_matched_tokens)} elsewhere` : "";
const matched = (it) => `${whole.format(it.matched_tokens)} of ${whole.format(it.prompt_tokens)}`;

const decisions = new Table("decisions", [
  {
    title: "Time", kind: "number",
    cell: plain((it) => `${clock.format(it.at_ms)}.${String(it.at_ms % 1000).padStart(3, "0")}`),
  },
  { title: "Model", kind: "name", cell: annotated((it) => it.model || "–", (it) => it.tenant) },
  { title: "Engine", kind: "name", cell: plain(where) },
  {
    title: "Matched", cell: meter((it) => it.matched_tokens / Math.max(1, it.prompt_tokens), matched, elsewhere),
  },
  { title: "Known by", cell: plain((it) => it.match_source) },
  { title: "TTFT", kind: "number", cell: annotated(expected, offBy) },
  { title: "Took", kind: "number", cell: plain((it) => known(it.took_ms, (ms) => `${milliseconds(ms)} ms`)) },
  {
    title: "Answer",
    cell: chip(
      (it) => (it.status === null ? it.fate : `${it.fate} ${it.status}`),
      (it) => (it.fate === "answered" && it.status >= 400 ? "warn" : FATES[it.fate]),
      () => "",
    ),
  },
  { title: "Why", kind: "why", cell: plain(why) },
]);

// --- figures ----------------------------------------------------------------------------------------

function line(id, values, atLeast) {
  const svg = byId(id);
  if (!svg.firstChild) {
    svg.setAttribute("preserveAspectRatio", "none");
    for (const name of ["area", "line"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
  }
  const [width, height] = [120, 32];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const most = Math.max(atLeast, ...values.map((value) => value ?? 0));
  const start = width - values.length;
  let [drawn, filled, run] = ["", "", []];
  const close = () => {
    if (run.length > 0) {
      const points = run.map(([x, y]) => `${x} ${y.toFixed(2)}`).join("L");
      drawn += `M${points}${run.length === 1 ? "h0.5" : ""}`;
      filled += `M${run[0][0]} ${height}L${points}L${run.at(-1)[0]} ${height}Z`;
    }
    run = [];
  };
  values.forEach((value, at) => {
    if (value === null) close();
    else run.push([start + at + 0.5, height - 1 - (value / most) * (height - 3)]);
  });
  close();
  svg.children[0].setAttribute("d", filled);
  svg.children[1].setAttribute("d", drawn);
}

function list(id, pairs) {
  const node = byId(id);
  while (node.children.length < 2 * pairs.length) node.append(element("dt"), element("dd"));
  while (node.children.length > 2 * pairs.length) node.lastChild.remove();
  pairs.forEach(([name, count], at) => {
    setText(node.children[2 * at], name);
    setText(node.children[2 * at + 1], whole.format(count));
  });
}

function showFigures(live) {
  const { gateway, requests, history } = live;
  const last = (values) => values.at(-1) ?? 0;
  setText(byId("requests-per-s"), rate(last(history.requests_per_s)));
  line("requests-line", history.requests_per_s, 1);
  setText(byId("in-flight"), `${whole.format(gateway.in_flight)} in flight`);
  const hits = history.hit_ratio.findLast((ratio) => ratio !== null) ?? null;
  setText(byId("hit-ratio"), known(hits, percent.format));
  line("hit-line", history.hit_ratio, 1);
  const overall = requests.prompt_tokens > 0 ? requests.matched_tokens / requests.prompt_tokens : null;
  setText(byId("hit-overall"), `${known(overall, percent.format)} so far`);
  setText(byId("output-per-s"), rate(last(history.output_tokens_per_s)));
  line("output-line", history.output_tokens_per_s, 1);
  setText(byId("completed"), `${whole.format(gateway.completed)} answers so far`);

  const held = requests.held_by_band;
  setText(byId("held"), whole.format(requests.holding_now));
  setText(byId("held-above"), whole.format(held.above_normal));
  setText(byId("held-normal"), whole.format(held.normal));
  setText(byId("held-below"), whole.format(held.below_normal));

  const counted = new Map();
  for (const { state } of live.endpoints) counted.set(state, (counted.get(state) ?? 0) + 1);
  setText(byId("engines-up"), whole.format(counted.get("up") ?? 0));
  setText(byId("engines-of"), `of ${whole.format(live.endpoints.length)} up`);
  const others = Object.keys(STATES).filter((state) => state !== "up" && counted.has(state));
  list("engine-states", others.map((state) => [state, counted.get(state)]));

  const refused = Object.entries(gateway.refused);
  setText(byId("refused"), whole.format(refused.reduce((sum, [, count]) => sum + count, 0)));
  const besides = [["sent again", gateway.retries], ["broken off", gateway.cut_off],
    ["client left", gateway.client_left]];
  list("refusals", [...refused, ...besides.filter(([, count]) => count > 0)]);
}

// --- the whole --------------------------------------------------------------------------------------

let shown = null;
let isPaused = false;

function showEndpoints() {
  const wanted = byId("filter").value.toLowerCase();
  const text = (it) => `${where(it)} ${it.model} ${it.state} ${labelsOf(it)}`.toLowerCase();
  const found = shown.endpoints.filter((it) => text(it).includes(wanted));
  const byNeed = found.toSorted((a, b) => severity(a) - severity(b));
  endpoints.show(endpoints.inOrder(byNeed), (it) => `${it.id} ${where(it)}`);
  setText(byId("shown"), `${whole.format(found.length)} of ${whole.format(shown.endpoints.length)}`);
}

function show(live) {
  shown = live;
  const since = new Date(live.started_ms).toLocaleString("en", { hourCycle: "h23" });
  setText(byId("about"), `version ${live.version}, up since ${since}`);
  byId("token").hidden = true;
  byId("figures").hidden = false;
  showFigures(live);
  showEndpoints();
  if (!isPaused) decisions.show(live.decisions, (_, at) => at);
}

function say(text, kind) {
  setText(byId("status"), text);
  byId("status").className = kind;
}

let token = sessionStorage.getItem(TOKEN_KEY) ?? "";
let reachedAt = null;

function askForToken() {
  setText(byId("token-error"), token ? "The gateway does not know this token." : "");
  sessionStorage.removeItem(TOKEN_KEY);
  token = "";
  byId("figures").hidden = true;
  byId("token").hidden = false;
  byId("token-input").focus();
  say("a token is needed", "warn");
}

async function ask() {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const response = await fetch("live", { headers, signal, cache: "no-store" });
  if (response.status === 401) return null;
  if (!response.ok) throw new Error(`it answers ${response.status}`);
  return response.json();
}

async function look() {
  let live;
  try {
    live = await ask();
  } catch {
    reachedAt ??= Date.now();
    say(`unreachable since ${clock.format(reachedAt)}`, "bad");
    document.body.classList.add("is-stale");
    setTimeout(look, PERIOD_MS);
    return;
  }
  document.body.classList.remove("is-stale");
  if (live === null) {
    askForToken();
    return;
  }
  reachedAt = Date.now();
  setTimeout(look, PERIOD_MS);
  show(live);
  if (live.is_draining) say("draining", "warn");
  else say("live", "good");
}

byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token-input").value;
  byId("token-input").value = "";
  sessionStorage.setItem(TOKEN_KEY, token);
  // Until it is known whether it is right: two tries at once would both go on.
  byId("token").hidden = true;
  look();
});

function pause() {
  isPaused = !isPaused;
  byId("pause").ariaPressed = String(isPaused);
  if (!isPaused && shown) show(shown);
}

endpoints.changed = () => shown && showEndpoints();
byId("filter").addEventListener("input", endpoints.changed);
byId("pause").addEventListener("click", pause);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (event.key === "p") pause();
  if (event.key === "/") {
    event.preventDefault();
    byId("filter").focus();
  }
});

look();
