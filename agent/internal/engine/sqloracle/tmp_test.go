package sqloracle

import "strings"

func notYet(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "value of type"))
}
