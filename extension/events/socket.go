package events

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1" // RFC 6455 section 1.3 says so; nothing rests on it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// socket is the client's end of a websocket (RFC 6455), for what a server does
// that only sends: text in, pings and pongs both ways, and the end. It is one
// small file because a library for it would be a fiftieth of the program.
type socket struct {
	rwc io.ReadWriteCloser
	r   *bufio.Reader

	mu sync.Mutex // guards writes to rwc
}

// Opcodes (RFC 6455 section 5.2).
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa
)

// maxMessage bounds a message, in bytes; Vault's events have about one KiB.
const maxMessage = 1 << 20

var (
	errFrame  = errors.New("the other end does not keep to the websocket protocol")
	errLarge  = fmt.Errorf("a message has more than %d bytes", maxMessage)
	errClosed = errors.New("the server ended the stream")
)

// offer gives a request the headers of a handshake and returns what the answer
// must prove to have read (RFC 6455 section 4.1).
func offer(h http.Header) (accept string) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	key := base64.StdEncoding.EncodeToString(nonce[:])
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-Websocket-Version", "13")
	h.Set("Sec-Websocket-Key", key)
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// open makes a socket of the answer to a handshake.
func open(res *http.Response, accept string) (*socket, error) {
	rwc, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") || res.Header.Get("Sec-Websocket-Accept") != accept ||
		res.Header.Get("Sec-Websocket-Extensions") != "" || res.Header.Get("Sec-Websocket-Protocol") != "" {
		res.Body.Close()
		return nil, errFrame
	}
	return &socket{rwc: rwc, r: bufio.NewReader(rwc)}, nil
}

// frame is one frame.
type frame struct {
	last    bool
	op      byte
	payload []byte
}

// frame reads the next frame, of at most so many bytes.
func (s *socket) frame(most uint64) (frame, error) {
	var b [8]byte
	if _, err := io.ReadFull(s.r, b[:2]); err != nil {
		return frame{}, err
	}
	f := frame{last: b[0]&0x80 != 0, op: b[0] & 0xf}
	if b[0]&0x70 != 0 || b[1]&0x80 != 0 { // an extension, or masked, which only clients do
		return f, errFrame
	}
	size := uint64(b[1])
	wide := 0
	switch size {
	case 126:
		wide = 2
	case 127:
		wide = 8
	}
	if wide > 0 {
		if _, err := io.ReadFull(s.r, b[8-wide:]); err != nil {
			return f, err
		}
		clear(b[:8-wide])
		size = binary.BigEndian.Uint64(b[:])
	}
	switch {
	case f.op >= opClose && (size > 125 || !f.last):
		return f, errFrame
	case size > most:
		return f, errLarge
	}
	f.payload = make([]byte, size)
	_, err := io.ReadFull(s.r, f.payload)
	return f, err
}

// read returns the next message. Pings are answered meanwhile, and pong gets
// what a pong carries.
func (s *socket) read(pong func(payload []byte)) ([]byte, error) {
	var message []byte
	begun := false
	for {
		f, err := s.frame(uint64(maxMessage - len(message)))
		if err != nil {
			return nil, err
		}
		switch f.op {
		case opPing:
			if err := s.write(opPong, f.payload); err != nil {
				return nil, err
			}
			continue
		case opPong:
			pong(f.payload)
			continue
		case opClose:
			_ = s.write(opClose, f.payload[:min(2, len(f.payload))]) // the other end may be gone already
			return nil, errClosed
		case opText, opBinary:
			if begun {
				return nil, errFrame
			}
		case opContinue:
			if !begun {
				return nil, errFrame
			}
		default:
			return nil, errFrame
		}
		begun = true
		message = append(message, f.payload...)
		if f.last {
			return message, nil
		}
	}
}

// write sends one frame of at most 125 bytes, masked as a client's must be.
func (s *socket) write(op byte, payload []byte) error {
	if len(payload) > 125 {
		return errFrame
	}
	out := make([]byte, 6, 6+len(payload))
	out[0], out[1] = 0x80|op, 0x80|byte(len(payload))
	_, _ = rand.Read(out[2:6])
	for i, b := range payload {
		out = append(out, b^out[2+i%4])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.rwc.Write(out)
	return err
}

func (s *socket) close() { s.rwc.Close() }
