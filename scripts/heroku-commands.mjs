// Holds each `heroku` command of scripts to the manual that its command line carries with it:
// node scripts/heroku-commands.mjs <oclif.manifest.json> FILE...
import { readFileSync, statSync } from "node:fs";

const [manual, ...files] = process.argv.slice(2);
const { commands } = JSON.parse(readFileSync(manual, "utf8"));
let seen = 0;
let wrong = 0;
for (const file of files.filter((file) => statSync(file).isFile() && !file.endsWith(".md"))) {
  // A command may go on behind a backslash.
  const lines = readFileSync(file, "utf8").replaceAll(/\\\n\s*/g, " ").split("\n");
  for (const line of lines.filter((line) => !/^\s*(#|need )/.test(line))) {
    for (const [, words] of line.matchAll(/(?:^|[\s(])heroku ([a-z:]+[^|;&)]*)/g)) {
      const [name, ...rest] = words.trim().split(/\s+/);
      const command = commands[name];
      seen += 1;
      const before = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
      const given = before.map((word) => word.match(/--([a-z-]+)/)?.[1]).filter(Boolean);
      const unknown = command ? given.filter((flag) => !(flag in command.flags)) : [name];
      if (unknown.length > 0) {
        console.error(`${file}: heroku ${name} knows no ${unknown.join(", ")}`);
        wrong += 1;
      }
    }
  }
}
if (seen === 0) console.error("no command of Heroku's was found");
process.exit(wrong === 0 && seen > 0 ? 0 : 1);
