package migration

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

const (
	bare   = "anthropic-oauth-proxy"
	suffix = ".tail1234.ts.net"
	oldID  = "nOLD1CNTRL"
	newID  = "nNEW1CNTRL"
	oldIP  = "127.0.0.2"
	newIP  = "127.0.0.3"
)

// A dev is a device as the Tailscale API lists it.
type dev struct {
	Addresses          []string `json:"addresses"`
	ID                 string   `json:"id"`
	NodeID             string   `json:"nodeId"`
	Name               string   `json:"name"`
	Hostname           string   `json:"hostname"`
	Tags               []string `json:"tags"`
	ConnectedToControl bool     `json:"connectedToControl"`
	LastSeen           string   `json:"lastSeen"`
	IsExternal         bool     `json:"isExternal"`
}

// A fault is an answer of the API other than the usual one.
type fault struct {
	call   string // to what: "rename nOLD1CNTRL to x", "delete nOLD1CNTRL" or "list"
	times  int    // how often; 0 is always
	status int    // 0 closes the connection without an answer
	body   string
	header http.Header
	after  bool          // the call takes effect nevertheless
	hold   chan struct{} // the call waits for this to be closed, and is then served as usual
	seen   chan struct{} // closed when the call has come
	cut    chan struct{} // closed when the caller gives up waiting
}

// A world is the tailnet and the cluster around one run.
type world struct {
	t       *testing.T
	api     *httptest.Server
	dnsAddr string
	port    string

	oldServer, newServer *server
	cluster              *cluster

	mu      sync.Mutex
	devices []dev
	faults  []*fault
	calls   []string // every write, and what it was answered with if that was no yes
	stale   string   // where the name leads, whatever the devices are called
	misses  int      // look-ups of the bare name while nobody had it
}

// A server is what answers at a device's address.
type server struct {
	handler atomic.Pointer[http.HandlerFunc]
	served  atomic.Int64
}

func (s *server) does(h http.HandlerFunc) { s.handler.Store(&h) }

// dies lets every further connection end without an answer.
func (s *server) dies() {
	s.does(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, oldServer: &server{}, newServer: &server{}}
	w.devices = []dev{
		{Addresses: []string{"fd7a:115c:a1e0::2", oldIP}, ID: "1001", NodeID: oldID, Name: bare + suffix, Hostname: bare, Tags: []string{"tag:proxy"}, ConnectedToControl: true},
		{Addresses: []string{newIP}, ID: "1002", NodeID: newID, Name: bare + "-1" + suffix, Hostname: bare, Tags: []string{"tag:k8s"}, ConnectedToControl: true},
		{Addresses: []string{"127.0.0.9"}, ID: "1003", NodeID: "nLAPTOPCNTRL", Name: "laptop" + suffix, Hostname: "laptop", ConnectedToControl: true},
		{Addresses: []string{"127.0.0.10"}, ID: "1004", NodeID: "nSHAREDCNTRL", Name: bare + ".elsewhere.ts.net", Hostname: bare, IsExternal: true},
	}
	w.cluster = newCluster()
	w.oldServer.does(w.oldProxy)
	w.newServer.does(newProxy)
	w.listen()
	w.api = httptest.NewServer(http.HandlerFunc(w.serveAPI))
	t.Cleanup(w.api.Close)
	w.serveDNS()
	return w
}

// listen opens one port on both devices' addresses.
func (w *world) listen() {
	for range 20 {
		a, err := net.Listen("tcp", oldIP+":0")
		assert.NilError(w.t, err)
		_, w.port, _ = net.SplitHostPort(a.Addr().String())
		b, err := net.Listen("tcp", newIP+":"+w.port)
		if err != nil { // somebody has that port there
			a.Close()
			continue
		}
		for l, s := range map[net.Listener]*server{a: w.oldServer, b: w.newServer} {
			srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*s.handler.Load())(rw, r) })}
			go func() { _ = srv.Serve(l) }()
			w.t.Cleanup(func() { srv.Close() })
		}
		return
	}
	w.t.Fatal("no port is free on both addresses")
}

func (w *world) oldProxy(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/health":
		fmt.Fprintf(rw, `{"status":"healthy","tailnet":{"connected":true,"hostname":%q,"ip":%q},"uptime_seconds":7}`, bare, oldIP)
	case "/metrics":
		fmt.Fprintf(rw, "# TYPE proxy_requests_total counter\nproxy_requests_total{method=\"GET\",status=\"200\"} 2\n"+
			"proxy_requests_total{method=\"POST\",status=\"200\"} %d\nproxy_requests_total_created 99\n", w.oldServer.served.Load())
	}
}

func newProxy(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/health":
		io.WriteString(rw, `{"status":"healthy","uptime_seconds":7,"requests_served":0,"errors_total":0,"in_flight":0}`)
	default:
		rw.Header().Set("X-Proxy-Request-Id", "req_1")
		rw.WriteHeader(401)
		io.WriteString(rw, `{"type":"error","error":{"type":"authentication_error","message":"x-api-key header is required"}}`)
	}
}

// fail arranges for a fault.
func (w *world) fail(f *fault) *fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, f)
	return f
}

// held arranges for a call to wait, and says when it has come.
func (w *world) held(call string) (came <-chan struct{}, release func()) {
	came, _, release = w.heldUntil(call)
	return came, release
}

func (w *world) heldUntil(call string) (came, cut <-chan struct{}, release func()) {
	f := w.fail(&fault{call: call, times: 1, hold: make(chan struct{}), seen: make(chan struct{}), cut: make(chan struct{})})
	release = sync.OnceFunc(func() { close(f.hold) })
	w.t.Cleanup(release)
	return f.seen, f.cut, release
}

func (w *world) meet(call string) *fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, f := range w.faults {
		if call != f.call && !(f.call == "list" && strings.HasPrefix(call, "list ")) {
			continue
		}
		if f.times == 1 {
			w.faults = append(w.faults[:i:i], w.faults[i+1:]...)
		} else if f.times > 1 {
			f.times--
		}
		return f
	}
	return nil
}

func (w *world) writes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.calls...)
}

func (w *world) device(id string) *dev {
	for i := range w.devices {
		if w.devices[i].NodeID == id {
			return &w.devices[i]
		}
	}
	return nil
}

func (w *world) name(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.device(id); d != nil {
		return strings.TrimSuffix(d.Name, suffix)
	}
	return ""
}

// sync orders what a test does to the world while nothing runs before and after what the servers see of it: the command in
// between is another process, which the race detector cannot look through.
func (w *world) sync() {
	for _, mu := range []*sync.Mutex{&w.mu, &w.cluster.mu} {
		mu.Lock()
		//nolint:staticcheck // the order is all that is wanted
		mu.Unlock()
	}
}

// edit changes a device.
func (w *world) edit(id string, change func(*dev)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w.device(id))
}

// swapped is a world in which the swap was a while ago.
func (w *world) swapped(ago time.Duration) *world {
	w.edit(oldID, func(d *dev) { d.Name = bare + "-old" + suffix })
	w.edit(newID, func(d *dev) { d.Name = bare + suffix })
	w.cluster.annotate("deployment/"+bare, swappedAt, time.Now().Add(-ago).UTC().Format(time.RFC3339))
	return w
}

func (w *world) serveAPI(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/kubectl" {
		w.cluster.serve(rw, r)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		rw.WriteHeader(401)
		io.WriteString(rw, `{"message":"API token invalid"}`)
		return
	}
	var id, verb, newName string
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v2/"), "/")
	switch {
	case r.Method == "GET" && len(parts) == 3 && parts[0] == "tailnet" && parts[2] == "devices":
		verb = "list " + parts[1]
	case r.Method == "POST" && len(parts) == 3 && parts[0] == "device" && parts[2] == "name":
		var in struct{ Name string }
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields()
		if dec.Decode(&in) != nil || r.Header.Get("Content-Type") != "application/json" {
			rw.WriteHeader(400)
			io.WriteString(rw, `{"message":"invalid request"}`)
			return
		}
		id, newName, verb = parts[1], in.Name, "rename "+parts[1]+" to "+in.Name
	case r.Method == "DELETE" && len(parts) == 2 && parts[0] == "device":
		id, verb = parts[1], "delete "+parts[1]
	default:
		rw.WriteHeader(404)
		io.WriteString(rw, `{"message":"not found"}`)
		return
	}
	f := w.meet(verb)
	if f != nil && f.hold != nil {
		close(f.seen)
		select {
		case <-f.hold:
		case <-r.Context().Done():
			close(f.cut)
			<-f.hold
		}
		f = nil
	}
	status, body := 200, []byte("{}")
	if f == nil || f.after {
		status, body = w.apply(verb, id, newName)
	}
	if f != nil {
		status, body = f.status, []byte(f.body)
		for k, v := range f.header {
			rw.Header()[k] = v
		}
	}
	if id != "" {
		if status/100 != 2 {
			verb += fmt.Sprintf(": %d", status)
		}
		w.mu.Lock()
		w.calls = append(w.calls, verb)
		w.mu.Unlock()
	}
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(body)
}

// apply is what the API does when nothing is wrong. Names are unique within the tailnet.
func (w *world) apply(verb, id, newName string) (int, []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == "" {
		b, _ := json.Marshal(map[string]any{"devices": w.devices})
		return 200, b
	}
	d := w.device(id)
	if d == nil {
		return 404, []byte(`{"message":"no such device"}`)
	}
	if strings.HasPrefix(verb, "delete") {
		for i := range w.devices {
			if w.devices[i].NodeID == id {
				w.devices = append(w.devices[:i:i], w.devices[i+1:]...)
				break
			}
		}
		return 200, nil
	}
	for _, x := range w.devices {
		if x.Name == newName+suffix && x.NodeID != id {
			return 400, []byte(`{"message":"name already in use"}`)
		}
	}
	d.Name = newName + suffix
	return 200, []byte("{}")
}

// serveDNS is MagicDNS: the name leads to whichever device has it at this moment, and to nothing if none has.
func (w *world) serveDNS() {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(w.t, err)
	w.dnsAddr = conn.LocalAddr().String()
	w.t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := w.resolve(buf[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
}

func (w *world) resolve(query []byte) []byte {
	if len(query) < 17 {
		return nil
	}
	var labels []string
	at := 12
	for at < len(query) && query[at] != 0 {
		labels = append(labels, string(query[at+1:at+1+int(query[at])]))
		at += 1 + int(query[at])
	}
	end := at + 5
	kind := binary.BigEndian.Uint16(query[at+1:])
	w.mu.Lock()
	addr, found := w.stale, w.stale != ""
	for _, d := range w.devices {
		if !found && strings.EqualFold(d.Name, strings.Join(labels, ".")) {
			addr, found = d.Addresses[len(d.Addresses)-1], true
		}
	}
	if !found && len(labels) > 0 && labels[0] == bare {
		w.misses++
	}
	w.mu.Unlock()
	var out bytes.Buffer
	flags, answers := uint16(0x8580), uint16(0) // an authoritative answer
	switch {
	case !found:
		flags |= 3 // no such name
	case kind == 1:
		answers = 1
	}
	out.Write(query[:2])
	_ = binary.Write(&out, binary.BigEndian, []uint16{flags, 1, answers, 0, 0})
	out.Write(query[12:end])
	if answers == 1 {
		ip := netip.MustParseAddr(addr).As4()
		_ = binary.Write(&out, binary.BigEndian, []uint16{0xc00c, 1, 1, 0, 600, 4})
		out.Write(ip[:])
	}
	return out.Bytes()
}

// noUpstream is the new proxy when it cannot reach the API.
func noUpstream(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/health" {
		newProxy(rw, r)
		return
	}
	rw.Header().Set("X-Proxy-Request-Id", "req_1")
	rw.WriteHeader(502)
	io.WriteString(rw, `{"type":"error","error":{"type":"proxy_error","message":"dial tcp: i/o timeout"}}`)
}

func stranger(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/health" {
		newProxy(rw, r)
		return
	}
	rw.WriteHeader(418)
}

func cilium(w *world, hostnsOnly, envoy string) {
	data := w.cluster.at("configmap/cilium-config", "data")
	data["bpf-lb-sock-hostns-only"], data["enable-envoy-config"] = hostnsOnly, envoy
}
