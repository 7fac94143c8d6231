// Standin runs the stand-in for the Anthropic API until it is interrupted. With it the proxy can be
// tried without internet and without an account. It prints what to type next.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "`address` to listen on")
	ca := flag.String("ca", filepath.Join(os.TempDir(), "standin-ca.pem"), "`file` to write the CA certificate to")
	http1 := flag.Bool("http1", false, "offer HTTP/1.1 only")
	plain := flag.Bool("plain", false, "no TLS (Go programs on macOS do not read SSL_CERT_FILE)")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("standin: unexpected argument %q: there are only flags, see -help", flag.Arg(0))
	}
	s, err := standin.Start(standin.Options{
		Addr: *listen, HTTP1: *http1, Plain: *plain, CAFile: *ca, Log: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	})
	if err != nil {
		log.Fatal("standin: ", err)
	}
	defer s.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	trust := ""
	if s.CAFile != "" {
		trust = "SSL_CERT_FILE=" + s.CAFile + " "
	}
	fmt.Printf(`stand-in for the Anthropic API on %s

Start the proxy in front of it, from the repository's root:

  %sgo run ./cmd/anthropic-oauth-proxy --upstream %s

and ask it something:

  curl -N http://127.0.0.1:8080/v1/messages -H 'authorization: Bearer sk-ant-oat01-any' \
    -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \
    -d '{"model":"claude-sonnet-5-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hello"}]}'

  ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_AUTH_TOKEN=sk-ant-oat01-any claude -p hello

POST /play does what its query says, as in 'http://127.0.0.1:8080/play?events=40&every=1s&end=cut'. Requests:

`, s.URL, trust, s.URL)
	<-ctx.Done()
}
