package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const askTimeout = 2 * time.Second

// lookup resolves the name without a cache.
func (m *migration) lookup(ctx context.Context, fqdn string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, m.dns)
	}}
	addrs, err := r.LookupNetIP(ctx, "ip4", fqdn+".")
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "", fmt.Errorf("look up %s at %s: %s", fqdn, m.dns, e.Err) // e's full text would name the system's resolver, which was not used
	}
	if err != nil {
		return "", err
	}
	return addrs[0].Unmap().String(), nil
}

// ask sends one request on a new connection, directly to a tailnet address.
func (m *migration) ask(ctx context.Context, address, path string) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+net.JoinHostPort(address, m.port)+path, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Host = bareName // as if the client had used the name
	// Never through an HTTP proxy, which would resolve the name itself.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp, body, err
}

// The proxies that may answer /health.
const (
	oldProxy = "the old proxy"
	newProxy = "the new proxy"
)

// answers finds out which proxy is behind a device. The new proxy's answer has a key that the old one's never had.
func (m *migration) answers(ctx context.Context, address string) (string, error) {
	resp, body, err := m.ask(ctx, address, "/health")
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("/health answers %s", resp.Status)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil {
		return "", fmt.Errorf("/health is not JSON: %w", err)
	}
	if _, ok := keys["in_flight"]; ok {
		return newProxy, nil
	}
	return oldProxy, nil
}

// reachesAPI sends a request without a credential. The API's own refusal proves that it arrived.
func (m *migration) reachesAPI(ctx context.Context, d *device) error {
	resp, body, err := m.ask(ctx, d.address(), "/v1/models")
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("X-Proxy-Request-Id") == "":
		return fmt.Errorf("a request without a credential gets %s instead of the API's 401: %s", resp.Status, bytes.TrimSpace(body))
	}
	return nil
}

// served reads the old proxy's request counter with all labels. If two readings are equal, it has served nothing in between.
func (m *migration) served(ctx context.Context, d *device) (string, error) {
	resp, body, err := m.ask(ctx, d.address(), "/metrics")
	if err != nil {
		return "", err
	}
	var counters []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "proxy_requests_total") {
			counters = append(counters, line)
		}
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte("# TYPE proxy_requests")) {
		return "", fmt.Errorf("/metrics answers %s without proxy_requests_total", resp.Status)
	}
	slices.Sort(counters)
	return strings.Join(counters, ""), nil
}
