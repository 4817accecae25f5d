"use strict";
(() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const make = (name, text = "") => {
    const node = document.createElement(name);
    node.textContent = text;
    return node;
  };

  // The theme is remembered where the browser lets a file remember anything.
  const themes = all('input[name="theme"]');
  try {
    const kept = localStorage.getItem("mannlab-theme");
    for (const theme of themes) theme.checked = kept ? theme.value === kept : theme.checked;
  } catch { /* not allowed here */ }
  for (const theme of themes) {
    theme.addEventListener("change", () => {
      try { localStorage.setItem("mannlab-theme", theme.value); } catch { /* not allowed here */ }
    });
  }

  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
        const body = table.tBodies[0];
        const compare = (a, b) => {
          const [x, y] = [key(a), key(b)];
          const both = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
          // What was not measured stays below.
          if (x === "" || y === "") return (x === "") - (y === "");
          return (up ? 1 : -1) * (both ? x - y : x.localeCompare(y));
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }

  for (const place of all(".command")) {
    const button = make("button", "copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const code = place.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      } catch {
        getSelection().selectAllChildren(code);
      }
    });
    place.append(button);
  }

  const tip = make("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const show = (event) => {
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    const top = event.clientY + 16 + box.height > innerHeight ? event.clientY - 12 - box.height : event.clientY + 16;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  let guide = null;
  const hide = () => {
    tip.hidden = true;
    guide?.remove();
    guide = null;
  };

  // A finger leaves as soon as it is lifted: what it showed stays until it touches something else.
  const leave = (event) => { if (event.pointerType !== "touch") hide(); };
  addEventListener("pointerdown", hide, { capture: true });

  for (const bar of all("[data-tip]")) {
    bar.querySelector("title")?.remove();
    const say = (event) => { tip.replaceChildren(make("span", bar.dataset.tip)); show(event); };
    bar.addEventListener("pointermove", say);
    bar.addEventListener("pointerdown", say);
    bar.addEventListener("pointerleave", leave);
  }

  const short = (value) => Number(value.toPrecision(4)).toLocaleString("en");
  const at = (line, x) => {
    const i = line.x.findIndex((place) => place >= x);
    if (i < 0 || x < line.x[0]) return null;
    const near = line.x[i] === x || i === 0;
    const [b, part] = [line.v[i], near ? 1 : (x - line.x[i - 1]) / (line.x[i] - line.x[i - 1])];
    const a = near ? b : line.v[i - 1];
    return b.map((value, k) => (k === 3 ? Math.min(a[k], b[k]) : a[k] + part * (value - a[k])));
  };
  for (const svg of all("svg.plot")) {
    const plot = JSON.parse(svg.dataset.plot);
    const [low, high, start, end, log] = plot.x;
    const place = (x) => start + (end - start) * (log ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low));
    const places = [...new Set(plot.lines.flatMap((line) => line.x))];
    for (const title of all("title", svg)) title.remove();
    const say = (event) => {
      const box = svg.getBoundingClientRect();
      const here = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const x = places.reduce((a, b) => (Math.abs(place(b) - here) < Math.abs(place(a) - here) ? b : a));
      const found = plot.lines.map((line) => [line, at(line, x)]).filter(([, value]) => value);
      found.sort((a, b) => b[1][0] - a[1][0]);
      tip.replaceChildren(make("b", `${short(x)} ${plot.unit}`));
      for (const [line, [mean, lowest, highest, runs]] of found) {
        const row = make("div");
        row.className = `c${line.c}`;
        const name = make("span", line.n);
        name.prepend(make("i"));
        const few = runs < Math.max(...line.v.map((value) => value[3])) ? `, ${runs} left` : "";
        const range = runs > 1 ? ` (${short(lowest)} to ${short(highest)}${few})` : few;
        row.append(name, make("span", short(mean) + range));
        tip.append(row);
      }
      guide ??= svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
      guide.setAttribute("class", "guide");
      guide.setAttribute("d", `M${place(x)} ${plot.y[3]}V${plot.y[2]}`);
      show(event);
    };
    svg.addEventListener("pointermove", say);
    svg.addEventListener("pointerdown", say);
    svg.addEventListener("pointerleave", leave);
  }
  addEventListener("scroll", hide, { passive: true });
})();
