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

// connect removes the token from the environment, so that no child process inherits it.
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

// strict returns an error for answers that the client library takes for success (a redirect) or cannot read (a gateway's page).
type strict struct{}

func (strict) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && (resp.StatusCode/100 == 3 || resp.StatusCode >= 500) {
		resp.Body.Close()
		return nil, fmt.Errorf("the Tailscale API answers %s", resp.Status)
	}
	return resp, err
}

// A device is a device in the tailnet. Its name is fully qualified: anthropic-oauth-proxy.tail1234.ts.net.
type device struct{ tailscale.Device }

func (d *device) short() string { short, _, _ := strings.Cut(d.Name, "."); return short }

func (d *device) related() bool { return strings.HasPrefix(d.short(), bareName) }

// fqdn returns the full form of the bare name. All devices of a tailnet have the same suffix.
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
		if !d.IsExternal { // a device shared from another tailnet has its name there
			own = append(own, device{d})
		}
	}
	return own, nil
}

func (m *migration) rename(ctx context.Context, d *device, name string) error {
	m.say("rename %v to %s", d, name)
	// Finish a write that has begun. If it were cancelled, nobody would know whether it took effect.
	if err := m.api.Devices().SetName(context.WithoutCancel(ctx), d.NodeID, name); err != nil {
		return fmt.Errorf("rename %s to %s: %w", d.short(), name, err)
	}
	return nil
}

// A world is the state of tailnet and cluster at one moment.
type world struct {
	devices []device
	old     *device  // the sidecar's
	now     *device  // the operator's
	holder  *device  // the one that has the bare name
	cluster *cluster // nil if not read
}

// The stages of the migration. The devices' names show which one it is.
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

// tailnet reads the devices and finds out which is which. The operator stores its device's id in the cluster. Without the cluster, the
// operator's device is the one that has the bare name and answers like the new proxy. It may also not answer, if the sidecar's device
// is parked. The sidecar's device is the other one with the bare name, or else the one that swap parked.
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
