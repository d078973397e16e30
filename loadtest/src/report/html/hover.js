// Says what lies below the pointer. The page shows everything without it.
for (const figure of document.querySelectorAll("figure[data-hover]")) {
  const { left, right, series } = JSON.parse(figure.dataset.hover);
  const svg = figure.querySelector("svg");
  const cursor = figure.querySelector(".cursor");
  const width = svg.viewBox.baseVal.width;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);

  const nearest = (places, x) => {
    let low = 0, high = places.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] <= x) low = middle; else high = middle;
    }
    return Math.abs(places[high] - x) < Math.abs(places[low] - x) ? high : low;
  };
  const row = (name, value, cls) => {
    const line = document.createElement("div");
    if (cls) {
      const swatch = document.createElement("i");
      swatch.className = cls;
      line.append(swatch);
    }
    line.append(name);
    if (value !== undefined) {
      const bold = document.createElement("b");
      bold.textContent = value;
      line.append(bold);
    }
    return line;
  };
  const hide = () => {
    tip.hidden = true;
    cursor.setAttribute("x1", -9);
    cursor.setAttribute("x2", -9);
  };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    const shown = series.filter((line) => line.x.length > 0);
    if (part < left || part > right || shown.length === 0) return hide();
    const first = nearest(shown[0].x, part * width);
    const x = shown[0].x[first];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    const rows = shown.map((line) => row(line.name, line.value[nearest(line.x, x)], line.class));
    tip.replaceChildren(row(shown[0].at[first]), ...rows);
    tip.hidden = false;
    const side = part < 0.5 ? part * box.width + 24 : part * box.width - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, side)}px`;
  });
}
