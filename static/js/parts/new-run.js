// The form of a new run: who qualifies for what is typed is asked of the server, at each change and when a device comes or
// goes; parameters that do not count are out of the form's way.

import { field, part, setText, show } from "../dom.js";
import { plain } from "../format.js";

const PAUSE = 300;
const ASKED_FOR = ["task", "strategy", "min_examples"];

export function mount(store) {
  const form = part("new-run");
  const beside = part("qualifying");
  if (!form || !beside) return null;
  show(beside.querySelector("[data-without-scripts]"), false);
  const asker = new Asker(form, beside);
  const settle = () => {
    withoutHidden(form);
    placeholders(form);
  };
  form.addEventListener("input", () => {
    settle();
    asker.soon();
  });
  settle();
  asker.soon();
  return { slices: ["devices"], paint: () => asker.soon() };
}

/** Parameters of a strategy or step that is not chosen are neither checked nor sent. */
function withoutHidden(form) {
  for (const option of form.querySelectorAll(".option")) {
    const chosen = option.querySelector(":scope > input").checked;
    for (const input of option.querySelectorAll(".fields input")) input.disabled = !chosen;
  }
}

/** Show in empty fields what they stand for. */
function placeholders(form) {
  const values = new FormData(form);
  const task = document.querySelector(`[data-task="${CSS.escape(values.get("task") ?? "")}"]`);
  for (const name of ["local_epochs", "batch_size", "learning_rate", "momentum"]) {
    form.elements[name].placeholder = task ? plain(task.dataset[name]) : "";
  }
  form.elements.quorum.placeholder = values.get("cohort_size") ?? "";
}

/** Asks once a pause is over, never twice at once, and shows only the answer to what is typed now. */
class Asker {
  #timer = null;
  #asking = false;
  #again = false;

  constructor(form, beside) {
    Object.assign(this, { form, beside });
  }

  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    if (this.#asking) return void (this.#again = true);
    this.#asking = true;
    try {
      const values = new FormData(this.form);
      this.#paint(values, await this.#answer(values));
    } finally {
      this.#asking = false;
      if (this.#again) {
        this.#again = false;
        this.soon();
      }
    }
  }

  async #answer(values) {
    if (ASKED_FOR.some((name) => !values.get(name))) return null;
    const query = new URLSearchParams(ASKED_FOR.map((name) => [name, values.get(name)]));
    try {
      const answer = await fetch(`${this.beside.dataset.api}?${query}`, { credentials: "same-origin" });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null; // the pill says that the server is away
    }
  }

  #paint(values, found) {
    const cohort = Number(values.get("cohort_size"));
    const quorum = Number(values.get("quorum")) || cohort;
    for (const name of ["at_work", "too_few_examples"]) setText(field(this.beside, name), found ? String(found[name]) : "–");
    const outlook = this.beside.querySelector("[data-outlook]");
    outlook.dataset.outlook = found && cohort >= 1 ? outlookOf(found.qualified, quorum, cohort) : "";
    const numbers = { qualified: found?.qualified ?? "", cohort, quorum };
    for (const [name, value] of Object.entries(numbers)) {
      for (const place of outlook.querySelectorAll(`[data-field="${name}"]`)) setText(place, String(value));
    }
  }
}

/** As fl/queries/qualifying.py: a whole round, a smaller one after its patience, or the run would wait. */
export function outlookOf(qualified, quorum, cohort) {
  if (qualified >= cohort) return "whole";
  return qualified >= quorum ? "smaller" : "wait";
}
