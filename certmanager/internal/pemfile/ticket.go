package pemfile

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// TicketKeys reads the keys of session tickets: 32 bytes in a line, in hexadecimal or base64. Empty
// lines and those that begin with "#" do not count. No error quotes a line.
func TicketKeys(data []byte) ([][32]byte, error) {
	var keys [][32]byte
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(data, utf8BOM)) {
		n++
		text := string(bytes.TrimSpace(line))
		if text == "" || text[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(text)
		if err != nil {
			key, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("line %d is not a key of 32 bytes in hexadecimal or base64; make one with openssl rand -hex 32", n)
		}
		keys = append(keys, [32]byte(key))
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key of session tickets; make one with openssl rand -hex 32")
	}
	return keys, nil
}
