package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	tailscale "tailscale.com/client/tailscale/v2"
)

// connect takes the token out of the environment, so that no child process inherits it.
func (m *migration) connect(base string) error {
	key := strings.TrimSpace(os.Getenv("TS_API_KEY"))
	if err := os.Unsetenv("TS_API_KEY"); err != nil {
		return err
	}
	if key == "" || strings.HasPrefix(key, "tskey-auth-") || strings.HasPrefix(key, "tskey-client-") {
		return errors.New("TS_API_KEY does not hold an API access token (tskey-api-…): admin console, Settings, Keys, Generate access token")
	}
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("read --api: %w", err)
	}
	m.api = &tailscale.Client{BaseURL: u, APIKey: key, HTTP: &http.Client{Timeout: 10 * time.Second, Transport: strict{}}}
	return nil
}

// strict makes errors of answers that the client library takes for success (a redirect) or cannot read (a gateway's page).
type strict struct{}

func (strict) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && (resp.StatusCode/100 == 3 || resp.StatusCode >= 500) {
		resp.Body.Close()
		return nil, fmt.Errorf("the Tailscale API answers %s", resp.Status)
	}
	return resp, err
}

// A device is one of the tailnet. Its name is fully qualified: anthropic-oauth-proxy.tail1234.ts.net.
type device struct{ tailscale.Device }

func (d *device) short() string { short, _, _ := strings.Cut(d.Name, "."); return short }

func (d *device) related() bool { return strings.HasPrefix(d.short(), bareName) }

// fqdn is the bare name in full: every device of a tailnet has the same suffix.
func (d *device) fqdn() string { return bareName + strings.TrimPrefix(d.Name, d.short()) }

// address is the device's IPv4 address on the tailnet.
func (d *device) address() string {
	for _, a := range d.Addresses {
		if strings.Contains(a, ".") {
			return a
		}
	}
	return ""
}

func (d *device) String() string {
	return fmt.Sprintf("%s (%s, %s, %s)", d.short(), d.NodeID, d.address(), strings.Join(d.Tags, ","))
}

func (m *migration) devices(ctx context.Context) ([]device, error) {
	all, err := m.api.Devices().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var own []device
	for _, d := range all {
		if !d.IsExternal { // shared in from another tailnet: its name lives there
			own = append(own, device{d})
		}
	}
	return own, nil
}

func (m *migration) rename(ctx context.Context, d *device, name string) error {
	m.say("rename %v to %s", d, name)
	// A write that has begun is seen through: cutting it off would leave open whether it happened.
	if err := m.api.Devices().SetName(context.WithoutCancel(ctx), d.NodeID, name); err != nil {
		return fmt.Errorf("rename %s to %s: %w", d.short(), name, err)
	}
	return nil
}

// A world is what one look at the tailnet and the cluster found.
type world struct {
	devices []device
	old     *device  // the sidecar's
	now     *device  // the operator's
	holder  *device  // whichever carries the bare name
	cluster *cluster // nil if it was not read
}

// The stages that names alone can tell apart.
const (
	before  = "the sidecar's device carries the name"
	between = "NOBODY carries the name"
	after   = "the operator's device carries the name"
)

func (w *world) stage() string {
	switch w.holder {
	case nil:
		return between
	case w.now:
		return after
	}
	return before
}

// tailnet looks at the names and says who is who. The operator wrote its device's id down in the cluster; without a cluster,
// it is the one that has the bare name and answers as the new proxy does, or not at all while the sidecar's is parked. The
// sidecar's is the other one with the bare name, or else the one that swap parked.
func (m *migration) tailnet(ctx context.Context, c *cluster) (*world, error) {
	devices, err := m.devices(ctx)
	if err != nil {
		return nil, err
	}
	w := &world{devices: devices, cluster: c}
	for i := range devices {
		d := &devices[i]
		switch d.short() {
		case bareName:
			w.holder = d
		case parkedName:
			w.old = d
		}
		if c != nil && slices.Contains(c.operator, d.NodeID) {
			w.now = d
		}
	}
	if c == nil && w.holder != nil {
		if who, err := m.answers(ctx, w.holder.address()); who == newProxy || err != nil && w.old != nil {
			w.now = w.holder
		}
	}
	if w.holder != nil && w.holder != w.now {
		w.old = w.holder
	}
	return w, nil
}

func (m *migration) look(ctx context.Context) (*world, error) {
	c, err := m.readCluster(ctx)
	if err != nil {
		return nil, err
	}
	return m.tailnet(ctx, c)
}
