package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
)

func checkPort(port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("--port %q: give a number from 1 to 65535", port)
	}
	return nil
}

func checkResolver(server string) error {
	if server == "system" {
		return nil
	}
	if _, err := netip.ParseAddrPort(server); err != nil {
		return fmt.Errorf("--resolver %q: give address and port, such as 100.100.100.100:53, or system", server)
	}
	return nil
}

// lookup asks for the name's address, each time anew.
func (m *migration) lookup(ctx context.Context, fqdn string) (string, error) {
	r := &net.Resolver{}
	if m.dns != "system" {
		r.PreferGo = true
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, m.dns)
		}
	}
	addrs, err := r.LookupNetIP(ctx, "ip", fqdn+".")
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "", fmt.Errorf("look up %s at %s: %s", fqdn, m.dns, e.Err) // its own text names the system's resolver
	}
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return a.Unmap().String(), nil
		}
	}
	return addrs[0].String(), nil
}

// ask sends one request on a connection of its own, straight to an address of the tailnet.
func (m *migration) ask(ctx context.Context, address, path string) (status int, header http.Header, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+net.JoinHostPort(address, m.port)+path, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	// Like a client that calls the name; never through an HTTP proxy, which would resolve the name for itself.
	req.Host = bareName
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.StatusCode, resp.Header, body, err
}

// healthy asks /health; in the new proxy's answer there is a key that the replaced one never had.
func (m *migration) healthy(ctx context.Context, address string) (isNew bool, err error) {
	status, _, body, err := m.ask(ctx, address, "/health")
	if err != nil {
		return false, err
	}
	if status != http.StatusOK {
		return false, fmt.Errorf("/health answers %d", status)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil {
		return false, errors.New("/health answers something that is not JSON")
	}
	_, isNew = keys["in_flight"]
	return isNew, nil
}
