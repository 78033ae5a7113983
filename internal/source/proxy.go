package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// longestV1 is the longest header of version 1, and longestV2 the longest of version 2 that is taken.
	// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
	longestV1 = 107
	longestV2 = 16 + 2048

	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// errNoHeader is what a header of the PROXY protocol is that cannot be one.
var errNoHeader = errors.New("the header of the PROXY protocol is wrong")

// ReadProxy looks for a header of the PROXY protocol, version 1 or 2, at the beginning of what a proxy sent. It gives the
// address that the header tells, "" where it tells none, and how long the header is; 0 where there is none. more says that
// what has come so far is not enough to know.
func ReadProxy(begin []byte) (client string, length int, more bool, err error) {
	switch {
	case bytes.HasPrefix(begin, []byte(signatureV2)):
		return readV2(begin)
	case bytes.HasPrefix(begin, []byte(signatureV1)):
		return readV1(begin)
	default:
		return "", 0, strings.HasPrefix(signatureV2, string(begin)) || strings.HasPrefix(signatureV1, string(begin)), nil
	}
}

// readV1 reads a line such as "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443".
func readV1(begin []byte) (client string, length int, more bool, err error) {
	line, _, whole := bytes.Cut(begin[:min(len(begin), longestV1)], []byte("\r\n"))
	if !whole {
		if len(begin) >= longestV1 {
			return "", 0, false, errNoHeader
		}
		return "", 0, true, nil
	}
	length = len(line) + 2
	fields := strings.Split(string(line), " ")
	if len(fields) >= 2 && fields[1] == "UNKNOWN" {
		return "", length, false, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return "", 0, false, errNoHeader
	}
	at, err := netip.ParseAddr(fields[2])
	port, portErr := strconv.ParseUint(fields[4], 10, 16)
	if err = errors.Join(err, portErr); err != nil {
		return "", 0, false, fmt.Errorf("%w: %w", errNoHeader, err)
	}
	return netip.AddrPortFrom(at.Unmap().WithZone(""), uint16(port)).String(), length, false, nil
}

func readV2(begin []byte) (client string, length int, more bool, err error) {
	const fixed = 16
	if len(begin) < fixed {
		return "", 0, true, nil
	}
	command, family := begin[12], begin[13]
	length = fixed + int(binary.BigEndian.Uint16(begin[14:]))
	if command>>4 != 2 || command&0xf > 1 || length > longestV2 {
		return "", 0, false, errNoHeader
	}
	if len(begin) < length {
		return "", 0, true, nil
	}
	if command&0xf == 0 {
		// LOCAL: the proxy speaks for itself, to see whether somebody is there.
		return "", length, false, nil
	}
	size := map[byte]int{1: 4, 2: 16}[family>>4]
	if size == 0 {
		return "", length, false, nil
	}
	body := begin[fixed:length]
	if len(body) < 2*size+4 {
		return "", 0, false, errNoHeader
	}
	at, _ := netip.AddrFromSlice(body[:size])
	return netip.AddrPortFrom(at.Unmap(), binary.BigEndian.Uint16(body[2*size:])).String(), length, false, nil
}
