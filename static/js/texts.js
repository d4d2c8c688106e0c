// Texts for people in the language of the page, from the catalogue that the server put into it (fl/texts.py). What it does
// not have is said in English, as it stands in the scripts.

let catalogue = {};

/** Speak by a catalogue: English text → what to say; of a text that counts, what to say for one and for more. */
export const speak = (texts) => (catalogue = texts);

const page = globalThis.document?.getElementById("texts");
if (page) speak(JSON.parse(page.textContent));

/** Write a word as it stands within a sentence. */
export const within = (word) => word.charAt(0).toLowerCase() + word.slice(1);

/** Fill the places of a text, such as `Round {round}`. */
export const interpolate = (text, places) => text.replace(/\{(\w+)\}/g, (place, name) => places[name] ?? place);

/** Say a text, its places filled. */
export const gettext = (text, places = {}) => interpolate(catalogue[text] ?? text, places);

/** Say a text that counts: `{count}` is its number, where `places` has no other writing of it. */
export const ngettext = (one, many, count, places = {}) => interpolate((catalogue[one] ?? [one, many])[count === 1 ? 0 : 1], { count, ...places });
