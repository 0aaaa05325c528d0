// A page that is served while its run grows: asks its own server for what is new.

// New text in a section; what is open or scrolled to stays so.
function renew(section, html) {
  const parts = () => [...section.querySelectorAll("details, .scroll")];
  const before = parts().map((each) => [each.open, each.scrollTop, each.scrollLeft]);
  section.innerHTML = html;
  for (const [i, each] of parts().entries()) {
    if (before[i]) [each.open, each.scrollTop, each.scrollLeft] = before[i];
  }
}

function follow(app, live) {
  const state = document.getElementById("live"), sections = new Map();
  let { generation, version } = live, misses = 0;

  async function ask() {
    const have = app.all.map((track) => `${track.run}.${track.model}.${track.length}`).join(",");
    const answer = await fetch(`since?generation=${generation}&version=${version}&have=${have}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  }

  async function turn() {
    try {
      const found = await ask();
      misses = 0;
      state.textContent = found.state;
      if (found.changed) {
        ({ generation, version } = found);
        await app.take(found);
        for (const [id, html] of Object.entries(found.sections)) {
          if (sections.get(id) !== html) renew(document.getElementById(id), html);
          sections.set(id, html);
        }
        legends(app);
        models(app);
        await app.refresh();
      }
      if (found.ended) {
        document.documentElement.dataset.ended = "true";
        return;
      }
    } catch {
      misses++;
      state.textContent = "the server does not answer: the page stays as it is";
      if (misses > 30) return;
    }
    setTimeout(turn, 700);
  }

  setTimeout(turn, 300);
}
