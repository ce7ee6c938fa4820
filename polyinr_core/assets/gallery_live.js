
// The image that this page draws itself: from one seed towards another, zoomed and moved.
(() => {
  const easel = one("#easel"), context = easel.getContext("2d");
  const coarse = document.createElement("canvas").getContext("2d");
  const box = easel.closest(".shown");
  const [from, to, mix, zoom] = ["from", "to", "mix", "zoom"].map((name) => one(`#easel-${name}`));
  const told = one("#easel-told");
  const STEP = 0.125, COARSE = 64;
  const middle = { x: 0.5, y: 0.5 };
  let model = null, drawer = null, latest = 0;
  coarse.canvas.width = coarse.canvas.height = COARSE;

  const maps = () => {
    const [a, b] = [from, to].map((choice) => model.maps[choice.selectedIndex]), t = mix.value / 100;
    return a.map((value, index) => value + t * (b[index] - value));
  };
  const span = () => 2 ** -zoom.value;
  const name = (choice) => choice.selectedOptions[0].textContent;

  const draw = async () => {
    latest += 1;
    const number = latest, wanted = () => number === latest;
    const half = span() / 2, image = maps();
    const window = { x0: middle.x - half, y0: middle.y - half, x1: middle.x + half, y1: middle.y + half };
    const way = Number(mix.value) ? `${name(from)}, ${mix.value} % of the way to ${name(to)}` : name(from);
    easel.setAttribute("aria-label", `${way}, enlarged ${(1 / span()).toPrecision(2)} times`);
    mix.setAttribute("aria-valuetext", `${mix.value} %`);
    zoom.setAttribute("aria-valuetext", `${(1 / span()).toPrecision(2)} times`);
    box.removeAttribute("data-drawn");
    const start = performance.now();
    if (!(await drawWindow(drawer, image, coarse, window, wanted))) return;
    context.drawImage(coarse.canvas, 0, 0, easel.width, easel.height);
    if (!(await drawWindow(drawer, image, context, window, wanted))) return;
    const seconds = (performance.now() - start) / 1000;
    told.textContent = `${easel.width} × ${easel.height} points, drawn by ${drawer.name} in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.`;
    box.dataset.drawn = drawer.name;
  };
  const move = (x, y) => {
    middle.x += x * span();
    middle.y += y * span();
    draw();
  };
  const ways = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

  for (const control of [from, to, mix, zoom]) control.addEventListener("input", draw);
  for (const button of all("[data-way]", box)) button.addEventListener("click", () => move(...ways[button.dataset.way]));
  one("#easel-whole").addEventListener("click", () => {
    Object.assign(middle, { x: 0.5, y: 0.5 });
    zoom.value = 0;
    draw();
  });
  easel.addEventListener("keydown", (event) => {
    if (!ways[event.key]) return;
    event.preventDefault();
    move(...ways[event.key]);
  });
  easel.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !(event.buttons & 1)) return;
    const { width, height } = easel.getBoundingClientRect();
    move(-event.movementX / width, -event.movementY / height);
  });
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    model = readModel(one("#network").textContent);
    drawer = drawerOf(model);
    easel.width = easel.height = drawer.side;
    draw();
  }).observe(easel);
  one(".easel", box).hidden = false;
})();
