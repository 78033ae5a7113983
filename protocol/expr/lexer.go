package expr

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind tells tokens apart that are not told apart by their text.
type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	// tokenName is a column's or a function's name, tokenQuotedName one in backquotes.
	tokenName
	tokenQuotedName
	tokenInt
	tokenFloat
	tokenString
	// tokenSymbol is a keyword, an operator or a bracket.
	tokenSymbol
)

// token is one word of an expression. text is the symbol, the name, the digits, or the string without quotes and escapes.
type token struct {
	kind tokenKind
	pos  int
	text string
}

func (t token) is(symbol string) bool { return t.kind == tokenSymbol && t.text == symbol }

// String is how messages call the token.
func (t token) String() string {
	switch t.kind {
	case tokenEnd:
		return "the end"
	case tokenString:
		return "the string " + quote(t.text)
	case tokenQuotedName:
		return formatName(t.text)
	case tokenName, tokenInt, tokenFloat, tokenSymbol:
		return t.text
	}
	return t.text
}

func isKeyword(word string) bool {
	switch word {
	case "and", "or", "not", "in", "matches", "true", "false", "null":
		return true
	}
	return false
}

// hintAt is how the language writes what the token means in others; "" where it is not known.
func hintAt(t token) string {
	if t.kind != tokenName {
		return ""
	}
	switch word := strings.ToLower(t.text); word {
	case "and", "or", "not", "in", "matches", "true", "false", "null":
		return fmt.Sprintf("write %s in lower case", word)
	case "like", "ilike", "rlike", "regexp":
		return `write matches, as in name matches "^A.*"`
	case "is":
		return "write is_null(x) or not is_null(x)"
	case "between":
		return "write x >= a and x <= b"
	case "xor":
		return "write a != b"
	case "mod":
		return "write a % b"
	case "div":
		return "write a / b"
	case "when", "then", "else", "end":
		return conditionHint
	}
	return ""
}

// conditionHint is how the language writes what is an if or a case in others.
const conditionHint = "write condition ? a : b"

func errorAt(pos int, format string, args ...any) *Error {
	return &Error{Pos: pos, Message: fmt.Sprintf(format, args...)}
}

// lexer cuts a text into tokens.
type lexer struct {
	text string
	pos  int
}

func (l *lexer) next() (token, error) {
	for l.pos < len(l.text) && strings.IndexByte(" \t\r\n", l.text[l.pos]) >= 0 {
		l.pos++
	}
	if l.pos >= len(l.text) {
		return token{kind: tokenEnd, pos: len(l.text)}, nil
	}
	c := l.text[l.pos]
	switch {
	case c >= '0' && c <= '9':
		return l.number()
	case c == '"' || c == '\'':
		return l.str(c)
	case c == '`':
		return l.quotedName()
	}
	if r, _ := utf8.DecodeRuneInString(l.text[l.pos:]); isNameStart(r) {
		return l.name(), nil
	}
	return l.symbol()
}

func isNameStart(r rune) bool { return r == '_' || r != utf8.RuneError && unicode.IsLetter(r) }

func isNamePart(r rune) bool { return isNameStart(r) || r >= '0' && r <= '9' }

// isName says whether the text is a name that needs no backquotes.
func isName(text string) bool {
	for i, r := range text {
		if i == 0 && !isNameStart(r) || !isNamePart(r) {
			return false
		}
	}
	return text != "" && !isKeyword(text)
}

func (l *lexer) name() token {
	start := l.pos
	for l.pos < len(l.text) {
		r, size := utf8.DecodeRuneInString(l.text[l.pos:])
		if !isNamePart(r) {
			break
		}
		l.pos += size
	}
	word := l.text[start:l.pos]
	if isKeyword(word) {
		return token{kind: tokenSymbol, pos: start, text: word}
	}
	return token{kind: tokenName, pos: start, text: word}
}

func (l *lexer) quotedName() (token, error) {
	start := l.pos
	var name strings.Builder
	for rest := l.text[start+1:]; ; {
		part, after, closed := strings.Cut(rest, "`")
		if !closed {
			return token{}, errorAt(start, "the name has no closing backquote")
		}
		name.WriteString(part)
		var doubled bool
		if rest, doubled = strings.CutPrefix(after, "`"); !doubled {
			l.pos = len(l.text) - len(after)
			break
		}
		name.WriteByte('`')
	}
	if name.Len() == 0 {
		return token{}, errorAt(start, "the name between the backquotes is empty")
	}
	return token{kind: tokenQuotedName, pos: start, text: name.String()}, nil
}

func (l *lexer) digits() bool {
	start := l.pos
	for l.pos < len(l.text) && l.text[l.pos] >= '0' && l.text[l.pos] <= '9' {
		l.pos++
	}
	return l.pos > start
}

func (l *lexer) number() (token, error) {
	start, kind := l.pos, tokenInt
	l.digits()
	if strings.HasPrefix(l.text[l.pos:], ".") {
		kind = tokenFloat
		if l.pos++; !l.digits() {
			return token{}, errorAt(l.pos, "write a digit after the decimal point")
		}
	}
	if l.pos < len(l.text) && (l.text[l.pos] == 'e' || l.text[l.pos] == 'E') {
		kind = tokenFloat
		l.pos++
		if l.pos < len(l.text) && (l.text[l.pos] == '+' || l.text[l.pos] == '-') {
			l.pos++
		}
		if !l.digits() {
			return token{}, errorAt(l.pos, "write a digit after the exponent's e")
		}
	}
	if r, _ := utf8.DecodeRuneInString(l.text[l.pos:]); isNamePart(r) {
		return token{}, errorAt(start, "a name cannot begin with a digit; write a column with such a name in backquotes")
	}
	return token{kind: kind, pos: start, text: l.text[start:l.pos]}, nil
}

func (l *lexer) str(quote byte) (token, error) {
	start := l.pos
	var text strings.Builder
	for l.pos++; l.pos < len(l.text); {
		switch c := l.text[l.pos]; c {
		case quote:
			l.pos++
			return token{kind: tokenString, pos: start, text: text.String()}, nil
		case '\\':
			r, err := l.escape()
			if err != nil {
				return token{}, err
			}
			text.WriteRune(r)
		default:
			text.WriteByte(c)
			l.pos++
		}
	}
	return token{}, errorAt(start, "the string has no closing %c", quote)
}

// escape reads what begins with the backslash at the current position.
func (l *lexer) escape() (rune, error) {
	start := l.pos
	rest := l.text[start+1:]
	if rest == "" {
		return 0, errorAt(start, "the string ends in a backslash; write \\\\ for one")
	}
	if rest[0] == 'u' {
		if len(rest) >= 5 {
			if code, err := strconv.ParseUint(rest[1:5], 16, 16); err == nil && utf8.ValidRune(rune(code)) {
				l.pos += 6
				return rune(code), nil
			}
		}
		return 0, errorAt(start, "after \\u stand four hexadecimal digits of a character; write a character beyond FFFF as itself")
	}
	const letters, meanings = `\"'nrt`, "\\\"'\n\r\t"
	if i := strings.IndexByte(letters, rest[0]); i >= 0 {
		l.pos += 2
		return rune(meanings[i]), nil
	}
	return 0, errorAt(start, "unknown escape; after a backslash stands one of \\ \" ' n r t u (write \\\\ for a backslash)")
}

func (l *lexer) symbol() (token, error) {
	start, rest := l.pos, l.text[l.pos:]
	for _, wrong := range [...][2]string{{"<>", "!="}, {"**", "pow(a, b)"}, {"//", "floor(a / b)"}} {
		if strings.HasPrefix(rest, wrong[0]) {
			return token{}, errorAt(start, "unknown operator %s; write %s", wrong[0], wrong[1])
		}
	}
	for _, s := range [...]string{"==", "!=", "<=", ">=", "??", "<", ">", "+", "-", "*", "/", "%", "?", ":", "(", ")", "[", "]", ","} {
		if strings.HasPrefix(rest, s) {
			l.pos += len(s)
			return token{kind: tokenSymbol, pos: start, text: s}, nil
		}
	}
	for _, wrong := range [...][2]string{{"&&", "and"}, {"||", "or"}, {"!", "not"}, {"=~", "matches"}, {"=", "=="}, {"^", "pow(a, b)"}, {"&", "bit_and(a, b)"}, {"|", "bit_or(a, b)"}} {
		if strings.HasPrefix(rest, wrong[0]) {
			return token{}, errorAt(start, "unknown operator %s; write %s", wrong[0], wrong[1])
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	hint := ""
	switch r {
	case '“', '”', '„', '‘', '’', '«', '»':
		hint = "; write texts in straight quotes, as in \"RUN\""
	case '.':
		hint = "; a member of json is taken with json_get(column, \"a.b\"), and a column with a dot in its name stands in backquotes"
	case ';':
		hint = "; an expression is one value, and further ones are columns of their own"
	}
	return token{}, errorAt(start, "unexpected character %q%s", r, hint)
}
