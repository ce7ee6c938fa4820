// The page: one image, its controls, and the address that keeps the view.

import "./exact.js";
import { Controls } from "./controls.js";
import { showFrame } from "./frame.js";
import { Loader } from "./loader.js";
import { Place, placeText } from "./place.js";
import { SILENT, say } from "./trouble.js";

const MIN_PIXEL_RATIO = 0.75; // pixels of the screen to one of a tile, at least
const HOME = { x: 0.5, y: 0.5, span: 1.1 }; // the square that was trained on, and a little about it
const COARSER = [0, 2, 4]; // levels above the wanted one that are drawn before it
const FIELDS = ["seed", "label", "psi", "other", "levels"];

const $ = (id) => document.getElementById(id);
const facts = await (await fetch("facts")).json();
const { side, first, last } = facts.tiles;
const { low, extent } = facts.world;
const toView = (p) => (p - low) / extent;
const asking = (fields) => new URLSearchParams({ ...fields, model: facts.model }); // another would be refused
const toPlane = (v) => low + v * extent;

let image = {}; // the fields of what is shown
let base = "polyinr"; // its command, but for size, window and output
let shown = null; // its tiled image

const viewer = OpenSeadragon({
  element: $("viewer"),
  drawer: "canvas", // the others place tiles by float32
  showNavigationControl: false,
  preserveViewport: true,
  visibilityRatio: 1,
  constrainDuringPan: true,
  minZoomImageRatio: 1,
  maxZoomPixelRatio: 2,
  minPixelRatio: MIN_PIXEL_RATIO,
  zoomPerClick: 2,
  zoomPerScroll: 1.4,
  animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0.01 : 0.6,
  maxTilesPerFrame: 4,
  maxImageCacheCount: 400,
  imageLoaderLimit: 0,
  timeout: 2 ** 31 - 1, // the loader has its own patience
});
const viewport = viewer.viewport;
const controls = new Controls(facts, { chosen: choose, framed: frame });

viewer.canvas.setAttribute("role", "application");
viewer.canvas.setAttribute("aria-label", "The image: arrow keys pan, plus and minus zoom, 0 goes home");

const loader = new Loader({ rank, told: (line) => say("tiles", line) });

function frame() {
  showFrame(viewport, [toView(0), toView(1)], controls.isFramed);
}

// The finest level that a view calls for, not held back by the last one there is.
function level() {
  const pixels = viewport.getContainerSize().x * OpenSeadragon.pixelDensityRatio * viewport.getZoom(false);
  return Math.floor(Math.log2(pixels / MIN_PIXEL_RATIO));
}

function rank(job) {
  const tile = job.tile;
  const finest = Math.min(last, Math.max(first, level()));
  const levels = COARSER.map((above) => Math.max(first, finest - above));
  if (job.source !== shown?.source) return null;
  if (!levels.includes(tile.level)) return null;
  if (!tile.bounds.intersection(viewport.getBounds(false))) return null; // exactly: exact.js
  return [tile.level, tile.squaredDistance ?? 0];
}

// Live redraw: the new image is laid over the old one, which goes when the new one is whole.
let goal = null; // where to go as soon as there is an image
let latest = 0;

function show(fields) {
  const query = asking(fields);
  const mine = ++latest;
  viewer.addTiledImage({
    tileSource: {
      width: 2 ** last,
      height: 2 ** last,
      tileSize: side,
      minLevel: first,
      maxLevel: last,
      getTileUrl: (z, x, y) => `tile/${z}/${x}/${y}?${query}`,
      hasTransparency: () => false,
      downloadTileStart: (job) => loader.start(job),
      downloadTileAbort: (job) => loader.forget(job),
    },
    success: ({ item }) => {
      if (mine !== latest) return viewer.world.removeItem(item);
      shown = item;
      busy(true);
      item.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
        if (item === shown) busy(!fullyLoaded);
        if (fullyLoaded) uncover(item);
      });
      if (goal) go(goal, true);
      goal = null;
      loader.look();
    },
  });
}

function busy(is) {
  $("stage").setAttribute("aria-busy", String(is));
}

function uncover(item) {
  const items = Array.from({ length: viewer.world.getItemCount() }, (_, i) => viewer.world.getItemAt(i));
  for (const other of items.slice(0, items.indexOf(item))) viewer.world.removeItem(other);
}

// Which image: asked of the server, which knows its class and its command

let asked = 0;

async function choose() {
  const fields = controls.read();
  if (!fields) return say("image", "A field holds no number that it can take.");
  const mine = ++asked;
  let answer;
  try {
    answer = await fetch(`image?${asking(fields)}`);
  } catch {
    return say("image", SILENT);
  }
  const text = await answer.text();
  if (mine !== asked) return;
  if (!answer.ok) return say("image", text.trim());
  say("image", null);
  const { label, command } = JSON.parse(text);
  base = command;
  image = fields;
  const name = label === null ? "" : `, ${facts.class_names[label] ?? `class ${label}`}`;
  const mixing = fields.levels ? `; levels ${fields.levels} of seed ${fields.other}` : "";
  $("drawn").textContent = `Seed ${fields.seed}${name}, psi ${fields.psi}${mixing}.`;
  document.title = `Seed ${fields.seed}${name} – polyinr view`;
  show(fields);
  describe();
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the view's
  $("controls").focus();
});
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("command").textContent);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("command"));
    $("copied").textContent = "Selected; copy it by the keyboard.";
  }
});

// Where the view is

function place() {
  const bounds = viewport.getBounds(false);
  const size = viewport.getContainerSize();
  return new Place({
    x: toPlane(bounds.x),
    y: toPlane(bounds.y),
    width: bounds.width * extent,
    height: bounds.height * extent,
    across: Math.round(size.x),
    down: Math.round(size.y),
  });
}

function go({ x, y, span }, immediately) {
  const { x: across, y: down } = viewport.getContainerSize();
  const shorter = Math.min(across, down);
  const width = (span * across) / shorter;
  const height = (span * down) / shorter;
  const bounds = new OpenSeadragon.Rect(
    toView(x - width / 2),
    toView(y - height / 2),
    width / extent,
    height / extent,
  );
  viewport.fitBounds(bounds, immediately);
  viewport.applyConstraints(immediately);
}

function describe() {
  const here = place();
  const finest = Math.min(last, Math.max(first, level()));
  const format = facts.formats[finest];
  $("window").textContent = placeText(here);
  const off = facts.tolerance ? ` Off by at most ${facts.tolerance} of 255, on 999 of 1000 pixels.` : "";
  let depth = `Drawn in ${format}.`;
  if (level() >= last) {
    depth =
      "This is the end: a finer pixel could no longer be placed in float64, the finest number format here.";
  } else if (format === "float64" && facts.formats[first] !== "float64") {
    depth = "Drawn in float64: pixels this small are all one to float32.";
  }
  $("depth").textContent = depth + off;
  $("command").textContent =
    `${base} --size ${here.across}x${here.down} --grid=${here.grid()}` +
    `${format === "float64" ? " --precision float64" : ""} -o image.png`;
  $("copied").textContent = "";
  const { x, y } = here.middle();
  const span = Math.min(here.width, here.height);
  const hash = new URLSearchParams({ ...image, x, y, span }).toString();
  history.replaceState(null, "", `#${hash}`);
}

// Moving

const MOVES = {
  in: () => viewport.zoomBy(2),
  out: () => viewport.zoomBy(0.5),
  left: () => pan(-0.25, 0),
  right: () => pan(0.25, 0),
  up: () => pan(0, -0.25),
  down: () => pan(0, 0.25),
  home: () => go(HOME, false),
};

function pan(x, y) {
  const bounds = viewport.getBounds(false);
  viewport.panBy(new OpenSeadragon.Point(x * bounds.width, y * bounds.height));
}

for (const button of document.querySelectorAll("[data-move]")) {
  button.addEventListener("click", () => {
    MOVES[button.dataset.move]();
    viewport.applyConstraints();
  });
}

viewer.addHandler("canvas-key", (event) => {
  const { key, ctrlKey, altKey, metaKey } = event.originalEvent;
  if (ctrlKey || altKey || metaKey || "rRfFjk".includes(key)) {
    event.preventDefaultAction = true; // the window of a command is neither turned nor flipped
  } else if (key === "0" || key === "Home") {
    event.preventDefaultAction = true;
    go(HOME, false);
  }
});
viewer.addHandler("viewport-change", () => loader.look());
viewer.addHandler("update-viewport", frame);
viewer.addHandler("animation-finish", () => {
  loader.look();
  viewer.forceRedraw();
  describe();
});
viewer.addHandler("resize", () => requestAnimationFrame(describe));

// The address: everything after the # is the view

function follow() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const start = Object.fromEntries(Object.entries(facts.start).filter(([, value]) => value !== null));
  const fields = FIELDS.some((name) => name in given) ? given : start;
  controls.fill(fields);
  const [x, y, span] = ["x", "y", "span"].map((name) => (name in given ? Number(given[name]) : NaN));
  goal = [x, y, span].every(Number.isFinite) && span > 0 ? { x, y, span } : HOME;
  choose();
}

addEventListener("hashchange", follow);
follow();
