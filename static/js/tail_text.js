/** The unfinished block as quiet text: the commonest marks are shown as what they will become, nothing else is parsed. */

import { element } from "./message.js";

const LONGEST = 6000; // Beyond this the text is shown as it is: the look is not worth parsing it anew for every delta.
const MARK = /(\*\*|`)/;

export function tailText(text) {
  const block = element("p", "tail__text");
  if (text.length > LONGEST) block.textContent = text;
  else for (const [place, line] of text.split("\n").entries()) appendLine(block, place ? `\n${line}` : line);
  return block;
}

function appendLine(block, line) {
  const heading = /^(\n?)#{1,6}\s+(.*)$/.exec(line);
  if (heading) block.append(heading[1], element("strong", "", heading[2]));
  else appendInline(block, line.replace(/^(\n?\s*)[-*+] (?=\S)/, "$1•  "));
}

function appendInline(block, line) {
  let open = null;
  for (const piece of line.split(MARK)) {
    if (piece === open) open = null;
    else if (open === null && (piece === "**" || piece === "`")) open = piece;
    else if (piece) block.append(open ? element(open === "`" ? "code" : "strong", "", piece) : piece);
  }
}
