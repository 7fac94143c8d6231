package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// tailscale is the part of the Tailscale API that this command needs: list, rename, delete.
type tailscale struct {
	base, tailnet, key string
}

// A device as the API lists it. Its name is fully qualified there: anthropic-oauth-proxy.tail1234.ts.net.
type device struct {
	ID         string   `json:"nodeId"`
	Name       string   `json:"name"`
	Hostname   string   `json:"hostname"`
	Addresses  []string `json:"addresses"`
	Tags       []string `json:"tags"`
	User       string   `json:"user"`
	LastSeen   string   `json:"lastSeen"`
	Connected  bool     `json:"connectedToControl"`
	IsExternal bool     `json:"isExternal"`
}

func (d device) short() string { short, _, _ := strings.Cut(d.Name, "."); return short }

// address is the device's IPv4 address on the tailnet, or whatever it has.
func (d device) address() string {
	for _, a := range d.Addresses {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() {
			return a
		}
	}
	if len(d.Addresses) > 0 {
		return d.Addresses[0]
	}
	return ""
}

func (d device) String() string {
	who := strings.Join(d.Tags, ",")
	if who == "" {
		who = d.User
	}
	seen := "online"
	if !d.Connected {
		seen = "offline, last seen " + d.LastSeen
	}
	return fmt.Sprintf("%s (%s, %s, %s, %s)", d.short(), d.ID, d.address(), who, seen)
}

// takeKey moves the token out of the environment, so that no child process inherits it. No message ever quotes it.
func (t *tailscale) takeKey() error {
	t.key = os.Getenv("TS_API_KEY")
	if err := os.Unsetenv("TS_API_KEY"); err != nil {
		return err
	}
	switch {
	case t.key == "":
		return errors.New("TS_API_KEY is not set: put an API access token (tskey-api-…, admin console, Settings, Keys) into it")
	case strings.ContainsFunc(t.key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("TS_API_KEY contains a space, a line break or another character no token has: set it again")
	case strings.HasPrefix(t.key, "tskey-auth-"):
		return errors.New("TS_API_KEY holds an auth key (tskey-auth-…), which lets a device join: an API access token (tskey-api-…) is needed")
	case strings.HasPrefix(t.key, "tskey-client-"):
		return errors.New("TS_API_KEY holds the secret of an OAuth client (tskey-client-…): exchange it for an access token first, docs/migration.md says how")
	}
	return nil
}

func (t *tailscale) check() error {
	u, err := url.Parse(t.base)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" {
		return fmt.Errorf("--api %q: give a URL such as https://api.tailscale.com", t.base)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme != "https" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("--api %q: only https, since the token travels with every call", t.base)
	}
	if t.tailnet == "" || strings.ContainsAny(t.tailnet, "/?# ") {
		return fmt.Errorf("--tailnet %q: give the tailnet's name as the admin console shows it, or - for the token's own", t.tailnet)
	}
	t.base = strings.TrimSuffix(t.base, "/")
	return nil
}

func (t *tailscale) devices(ctx context.Context) ([]device, error) {
	var answer struct{ Devices []device }
	err := t.call(ctx, "list devices", "GET", "/api/v2/tailnet/"+url.PathEscape(t.tailnet)+"/devices", nil, &answer)
	own := answer.Devices[:0]
	for _, d := range answer.Devices {
		if !d.IsExternal { // shared in from another tailnet: its name lives there
			own = append(own, d)
		}
	}
	return own, err
}

func (t *tailscale) rename(ctx context.Context, d device, name string) error {
	what := fmt.Sprintf("rename %s (%s) to %s", d.short(), d.ID, name)
	return t.call(ctx, what, "POST", "/api/v2/device/"+url.PathEscape(d.ID)+"/name", map[string]string{"name": name}, nil)
}

func (t *tailscale) remove(ctx context.Context, d device) error {
	return t.call(ctx, fmt.Sprintf("delete device %s (%s)", d.short(), d.ID), "DELETE", "/api/v2/device/"+url.PathEscape(d.ID), nil, nil)
}

// An apiError is an answer of the API that means no.
type apiError struct {
	what, hint, message string
	status              int
	retryAfter          time.Duration
}

func (e apiError) Error() string {
	s := fmt.Sprintf("%s: the Tailscale API answers %d", e.what, e.status)
	if e.message != "" {
		s += fmt.Sprintf(" %q", e.message)
	}
	return s + e.hint
}

func (t *tailscale) call(ctx context.Context, what, method, path string, in, out any) error {
	// A write that has begun is seen through: cutting it off would leave open whether it happened.
	if method != "GET" {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.base+path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	req.Header.Set("Authorization", "Bearer "+t.key)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// A redirect would carry the token to wherever it points.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", what, err)
	}
	if resp.StatusCode/100 != 2 {
		return t.refusal(what, resp, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: the answer is no device list, is --api right? (%w)", what, err)
	}
	return nil
}

func (t *tailscale) refusal(what string, resp *http.Response, body []byte) error {
	e := apiError{what: what, status: resp.StatusCode}
	var told struct{ Message string }
	if json.Unmarshal(body, &told) == nil { // anything that is not the API's own error is not worth repeating
		e.message = strings.ReplaceAll(told.Message, t.key, "…")
	}
	switch {
	case e.status == 401:
		e.hint = ": TS_API_KEY is wrong, expired or revoked; make a new access token (admin console, Settings, Keys)"
	case e.status == 403:
		e.hint = ": TS_API_KEY may not do this; it takes an access token of an admin, or an OAuth one with the scope devices:core (write)"
	case e.status == 404 && strings.HasPrefix(what, "list"):
		e.hint = fmt.Sprintf(": is --tailnet %s right? - is the token's own", t.tailnet)
	case e.status == 404:
		e.hint = ": the device is gone; `status` shows what is there"
	case e.status == 429:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		e.retryAfter = min(time.Duration(seconds)*time.Second, 10*time.Second)
		e.hint = ": too many calls; wait a minute"
	case e.status >= 500:
		e.hint = ": a fault on Tailscale's side; try again later"
	}
	return e
}
