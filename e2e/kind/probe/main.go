// Probe is what the cluster check runs beside the proxy: the upstream that streams, and the clients that look whether it does.
//
//	probe upstream           serve on :8080
//	probe stream  http://…   hold a streamed request through the proxy until the upstream is told to finish it
//	probe release http://…   tell the upstream to finish its streams
//	probe refused http://…   succeed only if no connection can be made
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "upstream" {
		return http.ListenAndServe(":8080", newUpstream())
	}
	if len(args) != 2 {
		return errors.New("usage: probe upstream | probe stream URL | probe release URL | probe refused URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	switch args[0] {
	case "stream":
		return stream(ctx, args[1], os.Stdout)
	case "release":
		return release(ctx, args[1])
	case "refused":
		return refused(ctx, args[1])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

const (
	first = "data: first"
	last  = "data: last"
)

// stream sees the first event while the upstream still holds back the last: only a proxy that passes events on at once, and
// that lets a stream live through whatever happens in between, gets to the end.
func stream(ctx context.Context, proxy string, out io.Writer) error {
	if err := healthy(ctx, proxy); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, proxy+"/v1/messages", strings.NewReader(`{"stream":true}`))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("POST /v1/messages: %s: %s", response.Status, body)
	}
	seen := ""
	for lines := bufio.NewScanner(response.Body); ; {
		if !lines.Scan() {
			return fmt.Errorf("the stream ended after %q, without the last event: %v", seen, lines.Err())
		}
		switch seen = lines.Text(); seen {
		case first:
			fmt.Fprintln(out, "the first event is here")
		case last:
			fmt.Fprintln(out, "the last event is here")
			return nil
		}
	}
}

// healthy waits for /health: a network policy takes a moment until it knows the address of a new pod.
func healthy(ctx context.Context, proxy string) error {
	client := http.Client{Timeout: 5 * time.Second}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, proxy+"/health", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s/health never answered 200: %w", proxy, err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func release(ctx context.Context, upstream string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, upstream+"/release", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("POST /release: %s", response.Status)
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
