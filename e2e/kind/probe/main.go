// Probe is what the cluster check runs beside the proxy: the clients that look whether it streams. The upstream is the stand-in.
//
//	probe stream  http://…   hold a streamed request through the proxy until the stand-in is told to finish it
//	probe release http://…   tell the stand-in to finish its streams
//	probe refused http://…   succeed only if no connection can be made
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	commands := map[string]func(context.Context, string) error{
		"stream":  func(ctx context.Context, url string) error { return stream(ctx, url, os.Stdout) },
		"release": release,
		"refused": refused,
	}
	if len(args) != 2 || commands[args[0]] == nil {
		return fmt.Errorf("usage: probe stream|release|refused URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	return commands[args[0]](ctx, args[1])
}

// stream sees the first event while the upstream still holds back the last: only a proxy that passes events on at once, and
// that lets a stream live through whatever happens in between, gets to the end.
func stream(ctx context.Context, proxy string, out io.Writer) error {
	if err := healthy(ctx, proxy); err != nil {
		return err
	}
	events, err := client.New(proxy).Open(ctx, standin.Part{Events: 1, End: standin.Hold}, []byte("{}"))
	if err != nil {
		return err
	}
	defer events.Close()
	if _, err := events.Next(); err != nil {
		return err
	}
	fmt.Fprintln(out, "the first event is here")
	if err := events.Rest(); err != nil {
		return err
	}
	fmt.Fprintln(out, "the last event is here")
	return nil
}

// healthy waits for /health: a network policy takes a moment until it knows the address of a new pod.
func healthy(ctx context.Context, proxy string) error {
	for {
		res, err := client.New(proxy).Do(ctx, http.MethodGet, "/health", nil, 0)
		if err == nil {
			if err = client.Refused(res); err == nil {
				res.Body.Close()
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s/health never answered 200: %w", proxy, err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func release(ctx context.Context, upstream string) error {
	res, err := client.New(upstream).Do(ctx, http.MethodPost, standin.PartPath+"/release", nil, 0)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("release: %s", res.Status)
	}
	return nil
}

// refused looks up the name first, so that a name that does not exist cannot pass for a policy that works.
func refused(ctx context.Context, target string) error {
	address, err := url.Parse(target)
	if err != nil {
		return err
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, address.Hostname()); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address.Host)
	if err != nil {
		log.Printf("refused, as it should be: %v", err)
		return nil
	}
	conn.Close()
	return fmt.Errorf("%s lets this pod in, but the NetworkPolicy should admit the Tailscale Operator's pod alone", address.Host)
}
