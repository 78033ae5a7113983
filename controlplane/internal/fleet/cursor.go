package fleet

import (
	"encoding/base64"
	"encoding/json"
)

// writeCursor is the text of a place in a listing, which clients give back unchanged.
func writeCursor[T any](place T) string {
	b, err := json.Marshal(place)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// readCursor is the other way. valid says whether a place can be one.
func readCursor[T any](text string, valid func(T) bool) (place T, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &place)
	}
	if err != nil || !valid(place) {
		return place, fail(Invalid, "the place to continue from cannot be read: take it from the page before, unchanged")
	}
	return place, nil
}
