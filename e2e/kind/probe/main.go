// Probe is the client that the cluster check runs to see whether the proxy streams. The upstream is the stand-in.
//
//	probe stream  http://…   read a stream through the proxy until the stand-in is told to finish it
//	probe release http://…   tell the stand-in to finish its streams
//	probe refused http://…   succeed only if no connection can be made
package main

import (
	"context"
	"errors"
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
	commands := map[string]func(context.Context, string) error{"release": release, "refused": refused, "stream": streamHere}
	if len(args) != 2 || commands[args[0]] == nil {
		return errors.New("usage: probe stream|release|refused URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	return commands[args[0]](ctx, args[1])
}

func streamHere(ctx context.Context, proxy string) error { return stream(ctx, proxy, os.Stdout) }

// stream reads the first event before the upstream sends the last one. It succeeds only if the proxy forwards events at once and
// keeps the stream until its end, whatever happens in between.
func stream(ctx context.Context, proxy string, out io.Writer) error {
	if err := healthy(ctx, proxy); err != nil {
		return err
	}
	events, err := client.New(proxy).Open(ctx, standin.Part{Events: 1, End: standin.Hold}, []byte("{}"))
	if err != nil {
		return err
	}
	defer events.Close()
	if _, _, err := events.Next(); err != nil {
		return err
	}
	fmt.Fprintln(out, "the first event arrived")
	if err := events.Rest(); err != nil {
		return err
	}
	fmt.Fprintln(out, "the last event arrived")
	return nil
}

// healthy waits for /health, because a network policy takes a moment to learn the address of a new pod.
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
		return fmt.Errorf("POST /play/release answered %s, want 204", res.Status)
	}
	return nil
}

// refused looks up the name first, so that a missing name does not look like a policy that works.
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
		log.Printf("refused, as expected: %v", err)
		return nil
	}
	conn.Close()
	return fmt.Errorf("%s accepts a connection from this pod, but the NetworkPolicy should admit only the Tailscale Operator's pod", address.Host)
}
