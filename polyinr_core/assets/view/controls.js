// The form that selects the image.

const WAIT = 200; // milliseconds without input before an image is requested
const $ = (id) => document.getElementById(id);

export class Controls {
  // onSelect() is called when another image is selected, onFrame() when the frame is shown or hidden.
  constructor(model, { onSelect, onFrame }) {
    this.onSelect = onSelect;
    this.levels = Array.from({ length: model.levels }, (_, i) => {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: String(i) });
      label.append(box, `level ${i}`);
      $("levels").append(label);
      return box;
    });
    for (let i = 0; i < model.classes; i++) {
      $("label").add(new Option(model.class_names[i] ?? `class ${i}`, String(i)));
    }
    $("class-row").hidden = !model.classes;
    $("controls").addEventListener("submit", (event) => event.preventDefault());
    $("controls").addEventListener("input", (event) => {
      if (event.target.id === "slider") $("psi").value = $("slider").value;
      if (event.target.id === "psi") $("slider").value = $("psi").value;
      if (event.target.id === "framed") onFrame();
      else this.changed();
    });
    $("another").addEventListener("click", () => {
      $("seed").value = String(Math.floor(Math.random() * 1e6));
      this.changed();
    });
  }

  changed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(this.onSelect, WAIT);
  }

  get isFramed() {
    return $("framed").checked;
  }

  fill(fields) {
    const label = fields.label ?? "";
    if (![...$("label").options].some((option) => option.value === String(label))) {
      $("label").add(new Option(`class ${label}`, label)); // an unknown class: the server reports it
    }
    $("seed").value = fields.seed ?? "0";
    $("label").value = label;
    $("psi").value = $("slider").value = fields.psi ?? "1";
    $("other").value = fields.other ?? "1";
    const chosen = (fields.levels ?? "").split(",");
    for (const box of this.levels) box.checked = chosen.includes(box.value);
  }

  // The query fields of the server, or null if one is invalid.
  read() {
    if (!$("controls").checkValidity()) return null;
    const fields = { seed: $("seed").value, psi: $("psi").value };
    if ($("label").value) fields.label = $("label").value;
    const levels = this.levels.filter((box) => box.checked).map((box) => box.value);
    if (levels.length) Object.assign(fields, { other: $("other").value, levels: levels.join(",") });
    return fields;
  }
}
