import { colourLine, type TokenKind } from "../lib/flowtext";

const colours: Record<TokenKind, string> = {
  key: "text-(--syntax-key)",
  string: "text-(--syntax-string)",
  number: "text-(--syntax-number)",
  word: "text-(--syntax-word)",
  comment: "text-muted italic",
  plain: "",
};

/** The text of a definition with line numbers, which are not copied along. */
export function Definition({ text }: { text: string }) {
  const lines = text.replace(/\n$/, "").split("\n");
  return (
    <section aria-label="Definition" tabIndex={0} className="scroll-x py-2">
      <pre className="font-mono text-sm leading-6">
        {lines.map((line, i) => (
          <span
            // biome-ignore lint/suspicious/noArrayIndexKey: a line is its number
            key={i}
            className="block pr-3 before:mr-4 before:inline-block before:w-10 before:text-right before:text-muted before:content-[attr(data-line)]"
            data-line={i + 1}
          >
            {line === ""
              ? "\n"
              : colourLine(line).map((token, j) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: a token is its place in the line
                  <span key={j} className={colours[token.kind]}>
                    {token.text}
                  </span>
                ))}
          </span>
        ))}
      </pre>
    </section>
  );
}
