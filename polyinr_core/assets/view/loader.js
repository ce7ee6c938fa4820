// Fetches tiles, a few at a time: only what is looked at, in the order of `rank`, given up when the view moves on.

import { SILENT } from "./trouble.js";

const AT_ONCE = 4;
const PATIENCE = 2000; // milliseconds between questions to a server that does not answer

export class Loader {
  // rank(job) is null for a tile that nobody looks at, else a list of numbers, the least first.
  // told(line) hears of trouble, null when it is over.
  constructor({ rank, told }) {
    Object.assign(this, { rank, told });
    this.jobs = new Map(); // each job of OpenSeadragon's with how it fares
  }

  start(job) {
    this.jobs.set(job, { fetching: null, from: 0 });
    this.pump();
  }

  // The view has moved, or the image is another: forget what nobody looks at. OpenSeadragon may ask for it again.
  look() {
    for (const job of [...this.jobs.keys()]) {
      if (this.rank(job) === null) this.forget(job);
    }
    this.pump();
  }

  forget(job) {
    this.jobs.get(job)?.fetching?.abort();
    this.jobs.delete(job);
    clearTimeout(job.jobId);
    job.jobId = null;
    job.tile.loading = false;
  }

  pump() {
    const busy = [...this.jobs.values()].filter((state) => state.fetching).length;
    const waiting = [];
    for (const [job, state] of this.jobs) {
      const rank = state.fetching ? null : this.rank(job);
      if (rank !== null) waiting.push({ job, state, rank });
    }
    const now = performance.now();
    const ready = waiting.filter(({ state }) => state.from <= now).sort((a, b) => compare(a.rank, b.rank));
    for (const { job, state } of ready.slice(0, Math.max(0, AT_ONCE - busy))) this.fetch(job, state);
  }

  async fetch(job, state) {
    const fetching = new AbortController();
    state.fetching = fetching;
    try {
      const answer = await fetch(job.src, { signal: fetching.signal });
      if (answer.ok) {
        const blob = await answer.blob();
        this.done(job, state);
        this.told(null);
        job.finish(blob, null, "rasterBlob");
      } else if (answer.status === 503) {
        this.later(state, 1000 * (Number(answer.headers.get("retry-after")) || 1));
      } else {
        const line = (await answer.text()).trim();
        this.done(job, state);
        this.told(line);
        job.fail(line, null);
      }
    } catch (error) {
      if (fetching.signal.aborted) return;
      this.told(SILENT);
      this.later(state, PATIENCE);
    }
    this.pump();
  }

  done(job, state) {
    state.fetching = null;
    this.jobs.delete(job);
  }

  later(state, milliseconds) {
    state.fetching = null;
    state.from = performance.now() + milliseconds;
    setTimeout(() => this.pump(), milliseconds + 1);
  }
}

function compare(a, b) {
  const at = a.findIndex((number, i) => number !== b[i]);
  return at < 0 ? 0 : a[at] - b[at];
}
