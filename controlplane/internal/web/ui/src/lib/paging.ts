// Long lists are shown a part at a time: thousands of rows make a page slow, and nobody reads them.

import { useState } from "react";

export interface Part<T> {
  items: readonly T[];
  /** How many are not shown. */
  rest: number;
  more: () => void;
}

/** The first of a list, and a way to show more of it. */
export function usePart<T>(list: readonly T[], size: number): Part<T> {
  const [parts, setParts] = useState(1);
  const items = list.length > parts * size ? list.slice(0, parts * size) : list;
  return { items, rest: list.length - items.length, more: () => setParts((n) => n + 1) };
}
