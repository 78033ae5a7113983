package decode

// Element finds the next element of a JSON array. p is 0 at first, then what the call before gave as next. The element is
// text[start:end]; next is -1 behind the last one, and start is -1 where an array is empty. When good is false the text
// is not an array. The element itself is looked at only as closely as it must be to find its end.
func Element(text []byte, p int) (start, end, next int, good bool) {
	p = space(text, p)
	if p >= len(text) || text[p] != '[' && text[p] != ',' {
		return -1, -1, -1, false
	}
	first := text[p] == '['
	start = space(text, p+1)
	if first && start < len(text) && text[start] == ']' {
		return -1, -1, -1, space(text, start+1) == len(text)
	}
	if end = elementEnd(text, start); end == start {
		return -1, -1, -1, false
	}
	switch next = space(text, end); {
	case next >= len(text):
		return -1, -1, -1, false
	case text[next] == ',':
		return start, end, next, true
	case text[next] == ']' && space(text, next+1) == len(text):
		return start, end, -1, true
	}
	return -1, -1, -1, false
}

// elementEnd is where the value at text[p:] ends; p itself when there is none.
func elementEnd(text []byte, p int) int {
	start, depth := p, 0
	for ; p < len(text); p++ {
		switch c := text[p]; {
		case c == '"':
			for p++; p < len(text) && text[p] != '"'; p++ {
				if text[p] == '\\' {
					p++
				}
			}
			if p >= len(text) {
				return start
			}
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']' || c <= ' '):
			return p
		case c == '}' || c == ']':
			depth--
		}
	}
	return start
}
