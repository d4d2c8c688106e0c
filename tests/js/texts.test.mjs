// Texts for people: said in the page's language where its catalogue has them, else in English, with their places filled.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { summaryOf } from "../../static/js/mosaic.js";
import { gettext, interpolate, ngettext, speak, within } from "../../static/js/texts.js";

const GERMAN = {
  "Round {round} of {rounds}": "Runde {round} von {rounds}",
  "{values} (round {round})": "In Runde {round}: {values}",
  "{count} device: {states}": ["{count} Gerät: {states}", "{count} Geräte: {states}"],
};

afterEach(() => speak({}));

test("without a catalogue a text is said as it stands in the script", () => {
  assert.equal(gettext("Round {round} of {rounds}", { round: 3, rounds: 20 }), "Round 3 of 20");
  assert.equal(ngettext("{count} new run", "{count} new runs", 1), "1 new run");
  assert.equal(ngettext("{count} new run", "{count} new runs", 0), "0 new runs");
});

test("a text of the catalogue is said in its language, its places where that has them", () => {
  speak(GERMAN);

  assert.equal(gettext("Round {round} of {rounds}", { round: 3, rounds: 20 }), "Runde 3 von 20");
  assert.equal(gettext("{values} (round {round})", { values: "0,5", round: 3 }), "In Runde 3: 0,5");
});

test("what the catalogue lacks is said in English", () => {
  speak(GERMAN);

  assert.equal(gettext("Reconnecting in {time}", { time: "0:03" }), "Reconnecting in 0:03");
  assert.equal(ngettext("{count} new run", "{count} new runs", 2), "2 new runs");
});

test("what counts is said for one and for more", () => {
  speak(GERMAN);
  const cells = [{ word: "Empfangen" }, { word: "Empfangen" }, { word: "Wartet auf Freigabe" }];

  assert.equal(summaryOf(cells.slice(0, 1)), "1 Gerät: 1 empfangen");
  assert.equal(summaryOf(cells), "3 Geräte: 2 empfangen, 1 wartet auf Freigabe");
});

test("a number that is written in another way stands so", () => {
  assert.equal(ngettext("{count} new event: show", "{count} new events: show", 1200, { count: "1,200" }), "1,200 new events: show");
});

test("what fills a place is never itself filled", () => {
  assert.equal(interpolate("{name} is {state}", { name: "{state}", state: "online" }), "{state} is online");
  assert.equal(interpolate("From {sender}.", { sender: "$& $1" }), "From $& $1.");
});

test("a place that nothing fills is left to be seen", () => {
  assert.equal(gettext("Started {moment}"), "Started {moment}");
});

test("a word within a sentence begins small, and keeps its nouns", () => {
  assert.equal(within("Waits for approval"), "waits for approval");
  assert.equal(within("Wartet auf Freigabe"), "wartet auf Freigabe");
  assert.equal(within(""), "");
});
