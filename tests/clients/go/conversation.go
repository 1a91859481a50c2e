// Sends many random messages over one socket, while it reads their echoes, and fails at the first that differs. See
// conversation.py beside it.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/coder/websocket"
)

// Sends run ahead of their echoes by this many messages.
const window = 64

type message struct {
	kind websocket.MessageType
	data []byte
}

func size(random *rand.Rand, number int) int {
	switch {
	case number%2500 == 1000:
		return 1 << 20
	case random.Intn(10) < 7:
		return random.Intn(126)
	case random.Intn(3) < 2:
		return random.Intn(4000)
	default:
		return random.Intn(70001)
	}
}

func next(random *rand.Rand, number int) message {
	data := make([]byte, size(random, number))
	random.Read(data)
	if random.Intn(2) == 0 {
		return message{websocket.MessageBinary, data}
	}
	for at := range data {
		data[at] = ' ' + data[at]%94
	}
	return message{websocket.MessageText, data}
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	url, address, ca := flag.Arg(0), flag.Arg(1), flag.Arg(2)
	seed, err := strconv.ParseInt(flag.Arg(3), 10, 64)
	check(err)
	count, err := strconv.Atoi(flag.Arg(4))
	check(err)
	pem, err := os.ReadFile(ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		// The name in the URL gives SNI and Host; the connection goes to `address`.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	ctx := context.Background()
	socket, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	check(err)
	socket.SetReadLimit(-1)

	underway := make(chan message, window)
	go func() {
		random := rand.New(rand.NewSource(seed))
		for number := range count {
			sent := next(random, number)
			underway <- sent
			check(socket.Write(ctx, sent.kind, sent.data))
		}
		close(underway)
	}()
	number, total := 0, 0
	for sent := range underway {
		kind, data, err := socket.Read(ctx)
		check(err)
		if kind != sent.kind || !bytes.Equal(data, sent.data) {
			log.Fatalf("echo %d differs: %v of %d bytes for %v of %d", number, kind, len(data), sent.kind, len(sent.data))
		}
		number++
		total += len(data)
	}
	check(socket.Close(websocket.StatusNormalClosure, ""))
	fmt.Printf("done: %d messages, %d bytes\n", number, total)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
