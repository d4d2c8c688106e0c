// Something that is told on a page, for parts that want to hear it. Parts are loaded while the socket connects already:
// what is told before they are there is kept for them.

const MOST = 5000;

export class Tap {
  #listeners = [];
  #early = [];

  /** Tell whoever listens. */
  tell(...what) {
    if (this.#early && this.#early.length < MOST) this.#early.push(what);
    for (const listen of this.#listeners) listen(...what);
  }

  /** Call `listen` with what is told from now on, and at once with what was told before `open`. */
  hear(listen) {
    for (const what of this.#early ?? []) listen(...what);
    this.#listeners.push(listen);
  }

  /** Everybody is there who will be: keep nothing any more. */
  open() {
    this.#early = null;
  }
}
