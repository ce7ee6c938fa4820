// Fetches visible tiles, a few at a time in the order of `rank`; requests are aborted when the viewport moves on.

import { NO_RESPONSE } from "./errors.js";

const MAX_REQUESTS = 4;
const RETRY_DELAY = 2000; // milliseconds, if the server does not respond

export class Loader {
  // rank(job) is null for an invisible tile, else a list of numbers; tiles are fetched in ascending order.
  // onError(line) is called with an error, and with null once requests succeed again.
  constructor({ rank, onError }) {
    Object.assign(this, { rank, onError });
    this.jobs = new Map(); // the state of each OpenSeadragon job
  }

  start(job) {
    this.jobs.set(job, { fetching: null, from: 0 });
    this.pump();
  }

  // The viewport or the image has changed: drop invisible tiles. OpenSeadragon may request them again.
  update() {
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
    for (const { job, state } of ready.slice(0, Math.max(0, MAX_REQUESTS - busy))) this.fetch(job, state);
  }

  async fetch(job, state) {
    const fetching = new AbortController();
    state.fetching = fetching;
    try {
      const answer = await fetch(job.src, { signal: fetching.signal });
      if (answer.ok) {
        const blob = await answer.blob();
        this.done(job, state);
        this.onError(null);
        job.finish(blob, null, "rasterBlob");
      } else if (answer.status === 503) {
        this.later(state, 1000 * (Number(answer.headers.get("retry-after")) || 1));
      } else {
        const line = (await answer.text()).trim();
        this.done(job, state);
        this.onError(line);
        job.fail(line, null);
      }
    } catch (error) {
      if (fetching.signal.aborted) return;
      this.onError(NO_RESPONSE);
      this.later(state, RETRY_DELAY);
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
