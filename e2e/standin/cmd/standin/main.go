// Standin serves the stand-in for the Anthropic API until it is interrupted, so that the proxy
// can be tried without internet and without an account. It prints what to type next.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("standin", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8443", "`address` to listen on")
	ca := flags.String("ca", filepath.Join(os.TempDir(), "standin-ca.pem"), "`file` to write the CA certificate to")
	http1 := flags.Bool("http1", false, "offer HTTP/1.1 only")
	plain := flags.Bool("plain", false, "no TLS (Go programs on macOS do not read SSL_CERT_FILE)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: there are only flags, see -help", flags.Arg(0))
	}
	s, err := standin.Start(standin.Options{
		Addr: *listen, HTTP1: *http1, Plain: *plain, CAFile: *ca,
		Log: func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) },
	})
	if err != nil {
		return err
	}
	trust := ""
	if s.CAFile != "" {
		trust = "SSL_CERT_FILE=" + s.CAFile + " "
	}
	fmt.Fprintf(out, `stand-in for the Anthropic API on %s

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
	return s.Close()
}
