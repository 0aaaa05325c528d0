// A page that is served while its run grows: asks its own server for what is new.

function follow(app, live) {
  const state = document.getElementById("live");
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
          const section = document.getElementById(id);
          if (section && section.innerHTML !== html) section.innerHTML = html;
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
