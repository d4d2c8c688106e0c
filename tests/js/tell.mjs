// Tells events with the pages' own script: words and events come as JSON on standard input, lines go out as JSON.
// tests/fl/test_feed.py holds them against what the server tells.

import { readFileSync } from "node:fs";

import { findKey, readingOf, tell } from "../../static/js/feed.js";
import { formats, writeWith } from "../../static/js/format.js";

const { words, events, numbers } = JSON.parse(readFileSync(0, "utf8"));
writeWith(words.numbers);
const lines = events.map(({ event, data }) => ({ key: findKey(words, event, data), line: tell(words, event, data), reading: readingOf(words, event, data) }));
const written = Object.fromEntries(Object.entries(numbers).map(([name, values]) => [name, values.map((value) => formats[name](value))]));
console.log(JSON.stringify({ lines, written }));
