package decode

// Element finds the next element of a JSON array. p is the position of the array's opening bracket, or what the call
// before gave as next. The element is text[start:end]; next is -1 behind the last one, and start is -1 when there is no
// further element or when the text is not an array, which good tells apart. The element itself is looked at only as
// closely as it must be to find its end.
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
	if end = skip(text, start); end < 0 {
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
