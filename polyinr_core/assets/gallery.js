
"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CALM_FRAMES_A_SECOND = 2;
const MAX_ENLARGED = 3;  // times, in the dialog

// A command's lines break between options where there is room, as in the page's own.
const write = (code, command) => {
  const parts = command.split(/ (?=-)/).map((textContent) => Object.assign(document.createElement("span"), { textContent }));
  code.replaceChildren(...parts.flatMap((part, index) => (index ? [" ", part] : [part])));
};

// Slides: all stand on the page for who has no script; here one is shown, which the slider chooses.
for (const box of all(".slides")) {
  const slides = all(".slide", box);
  const range = one("input", box), told = one(".told", box), play = one(".play", box);
  const command = one(":scope > .command code", box);
  let timer = 0;

  const show = (index) => {
    slides.forEach((slide, other) => { slide.hidden = other !== index; });
    const { name, command: text } = slides[index].dataset;
    range.value = index;
    range.setAttribute("aria-valuetext", name);
    told.textContent = name;
    if (text) write(command, text);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    told.setAttribute("aria-live", "polite");
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  };
  const start = () => {
    const speed = calm.matches ? CALM_FRAMES_A_SECOND : Number(box.dataset.framesASecond);
    told.setAttribute("aria-live", "off");
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Pause";
    timer = setInterval(() => show((Number(range.value) + 1) % slides.length), 1000 / speed);
  };

  range.addEventListener("input", () => {
    if (timer) stop();
    show(Number(range.value));
  });
  play?.addEventListener("click", () => (timer ? stop() : start()));
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    for (const image of all("img", box)) image.loading = "eager";  // so that no slide comes late
    observer.disconnect();
  }, { rootMargin: "600px" }).observe(box);
  one(".control", box).hidden = false;
  box.classList.add("live");
  show(Number(range.value));
}

// Printed, everything is on the paper.
addEventListener("beforeprint", () => {
  for (const image of all("img")) image.loading = "eager";
});

// An image opens larger, with its command.
const dialog = one("#large");
const large = one("img", dialog);
let shown = [], at = 0;

const open = (index) => {
  at = (index + shown.length) % shown.length;
  const link = shown[at], image = one("img", link);
  large.src = link.href;
  large.alt = image.alt;
  large.width = image.width;
  large.height = image.height;
  const exact = link.classList.contains("exact");
  large.style.imageRendering = exact ? "pixelated" : "auto";
  large.style.maxWidth = exact ? "" : `${MAX_ENLARGED * image.width}px`;
  one("#large-caption").textContent = link.dataset.caption;
  write(one("code", dialog), link.dataset.command);
  one(".file", dialog).href = link.href;
};
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.image");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  shown = all("a.image", link.closest(".slide, .shown"));
  open(shown.indexOf(link));
  dialog.showModal();
});
one(".close", dialog).addEventListener("click", () => dialog.close());
one(".before", dialog).addEventListener("click", () => open(at - 1));
one(".after", dialog).addEventListener("click", () => open(at + 1));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => shown[at].focus());
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) open(at + step);
});
for (const link of all("a.image")) link.setAttribute("aria-haspopup", "dialog");

// Commands are copied; where the browser forbids it they are selected, for the person to do it.
for (const button of all(".copy")) {
  const words = button.innerHTML;
  let timer = 0;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = one("code", button.parentElement);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    clearTimeout(timer);
    timer = setTimeout(() => { button.innerHTML = words; }, 1500);
  });
}
