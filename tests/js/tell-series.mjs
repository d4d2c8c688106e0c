// Draws rounds with the pages' own script: they come as JSON on standard input, the columns of their accuracy go out.
// tests/fl/test_series.py holds them against what the server tells.

import { readFileSync } from "node:fs";

import { columns, isMeasuredOnDevices } from "../../static/js/series.js";

const { rounds, startedAt } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(columns(rounds, "accuracy", { onDevices: isMeasuredOnDevices(rounds), startedAt })));
