package migration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
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

// A dev is a device in the Tailscale API's list.
type dev struct {
	Addresses  []string `json:"addresses"`
	NodeID     string   `json:"nodeId"`
	Name       string   `json:"name"`
	Tags       []string `json:"tags"`
	IsExternal bool     `json:"isExternal"`
}

// A fault replaces the API's usual answer to a call.
type fault struct {
	call   string // "rename nOLD1CNTRL to x", "delete nOLD1CNTRL" or "list"
	times  int    // how often it happens; 0 means always
	status int    // 0 closes the connection without an answer
	body   string
	after  bool          // the call still takes effect
	hold   chan struct{} // the call waits until this is closed, and then gets the usual answer
	seen   chan struct{} // closed when the call has arrived
	cut    chan struct{} // closed when the caller gives up waiting
}

// A world is the tailnet and the cluster around one run.
type world struct {
	t                    *testing.T
	api                  *httptest.Server
	dnsAddr, port        string
	oldServer, newServer *server
	cluster              *cluster

	mu      sync.Mutex
	devices []dev
	faults  []*fault
	calls   []string // every write, with its status if that was not 200
	stale   string   // if set, the name leads here, whatever the devices are called
	misses  int      // look-ups of the bare name while no device had it
}

// A server answers at a device's address.
type server struct {
	handler atomic.Pointer[http.HandlerFunc]
}

func (s *server) does(h http.HandlerFunc) { s.handler.Store(&h) }

func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) { (*s.handler.Load())(rw, r) }

// dies makes every further connection end without an answer.
func (s *server) dies() {
	s.does(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, oldServer: &server{}, newServer: &server{}, cluster: newCluster()}
	w.devices = []dev{
		{Addresses: []string{"fd7a:115c:a1e0::2", oldIP}, NodeID: oldID, Name: bare + suffix, Tags: []string{"tag:proxy"}},
		{Addresses: []string{newIP}, NodeID: newID, Name: bare + "-1" + suffix, Tags: []string{"tag:k8s"}},
		{Addresses: []string{"127.0.0.9"}, NodeID: "nLAPTOPCNTRL", Name: "laptop" + suffix},
		{Addresses: []string{"127.0.0.10"}, NodeID: "nSHAREDCNTRL", Name: bare + ".elsewhere.ts.net", IsExternal: true},
	}
	w.oldServer.does(oldProxy)
	w.newServer.does(newProxy)
	w.listen()
	w.serveDNS()
	mux := http.NewServeMux() // the paths of the real API
	mux.HandleFunc("GET /api/v2/tailnet/-/devices", w.serveAPI)
	mux.HandleFunc("POST /api/v2/device/{id}/name", w.serveAPI)
	mux.HandleFunc("DELETE /api/v2/device/{id}", w.serveAPI)
	mux.HandleFunc("/kubectl", w.cluster.serve)
	w.api = httptest.NewServer(mux)
	t.Cleanup(w.api.Close)
	return w
}

// listen opens one port on both devices' addresses.
func (w *world) listen() {
	for range 20 {
		a, err := net.Listen("tcp", oldIP+":0")
		assert.NilError(w.t, err)
		_, w.port, _ = net.SplitHostPort(a.Addr().String())
		b, err := net.Listen("tcp", newIP+":"+w.port)
		if err != nil { // the port is taken on the other address
			a.Close()
			continue
		}
		for l, s := range map[net.Listener]*server{a: w.oldServer, b: w.newServer} {
			srv := &http.Server{Handler: s}
			go func() { _ = srv.Serve(l) }()
			w.t.Cleanup(func() { srv.Close() })
		}
		return
	}
	w.t.Fatal("no port is free on both addresses")
}

func oldProxy(rw http.ResponseWriter, r *http.Request) { counted(rw, r, 40) }

func counted(rw http.ResponseWriter, r *http.Request, n int64) {
	switch r.URL.Path {
	case "/health":
		fmt.Fprintf(rw, `{"status":"healthy","tailnet":{"connected":true,"hostname":%q,"ip":%q},"uptime_seconds":7}`, bare, oldIP)
	case "/metrics":
		fmt.Fprintf(rw, "# TYPE proxy_requests_total counter\nproxy_requests_total{method=\"POST\",status=\"200\"} %d\n", n)
	}
}

func newProxy(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/health" {
		io.WriteString(rw, `{"status":"healthy","uptime_seconds":7,"requests_served":0,"errors_total":0,"in_flight":0}`)
		return
	}
	rw.Header().Set("X-Proxy-Request-Id", "req_1")
	rw.WriteHeader(401)
	io.WriteString(rw, `{"type":"error","error":{"type":"authentication_error","message":"x-api-key header is required"}}`)
}

// healthyOnly is a new proxy that answers every path but /health with the given status and body.
func healthyOnly(status int, body string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			newProxy(rw, r)
			return
		}
		rw.WriteHeader(status)
		io.WriteString(rw, body)
	}
}

// fail adds a fault.
func (w *world) fail(f *fault) *fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, f)
	return f
}

// held makes a call wait until release. The fault's channels signal when the call has arrived and when its caller gave up.
func (w *world) held(call string) (f *fault, release func()) {
	f = w.fail(&fault{call: call, times: 1, hold: make(chan struct{}), seen: make(chan struct{}), cut: make(chan struct{})})
	release = sync.OnceFunc(func() { close(f.hold) })
	w.t.Cleanup(release)
	return f, release
}

func (w *world) meet(call string) *fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.faults, func(f *fault) bool { return f.call == call })
	if i < 0 {
		return nil
	}
	f := w.faults[i]
	if f.times == 1 {
		w.faults = slices.Delete(w.faults, i, i+1)
	} else if f.times > 1 {
		f.times--
	}
	return f
}

func (w *world) writes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

func (w *world) name(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.devices {
		if d.NodeID == id {
			return strings.TrimSuffix(d.Name, suffix)
		}
	}
	return ""
}

// rename changes what a device is called.
func (w *world) rename(id, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apply("rename", id, name)
}

// sync orders a test's changes to the world before the servers' next reads. The command between them is another process, so the race
// detector cannot see that order by itself.
func (w *world) sync() {
	w.writes()
	w.cluster.changed()
}

// swapped returns a world after the swap.
func (w *world) swapped() *world {
	w.rename(oldID, bare+"-old")
	w.rename(newID, bare)
	return w
}

func (w *world) serveAPI(rw http.ResponseWriter, r *http.Request) {
	if key, password, _ := r.BasicAuth(); key != token || password != "" {
		rw.WriteHeader(401)
		io.WriteString(rw, `{"message":"API token invalid"}`)
		return
	}
	id, verb, call := r.PathValue("id"), "list", "list"
	var in struct{ Name string }
	switch r.Method {
	case "POST":
		dec := json.NewDecoder(r.Body)
		dec.DisallowUnknownFields()
		if dec.Decode(&in) != nil || r.Header.Get("Content-Type") != "application/json" {
			rw.WriteHeader(400)
			io.WriteString(rw, `{"message":"invalid request"}`)
			return
		}
		verb, call = "rename", "rename "+id+" to "+in.Name
	case "DELETE":
		verb, call = "delete", "delete "+id
	}
	f := w.meet(call)
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
	w.mu.Lock()
	status, body := 200, ""
	if f == nil || f.after {
		status, body = w.apply(verb, id, in.Name)
	}
	if f != nil {
		status, body = f.status, f.body
	}
	if status/100 != 2 {
		call += fmt.Sprintf(": %d", status)
	}
	if id != "" {
		w.calls = append(w.calls, call)
	}
	w.mu.Unlock()
	switch status {
	case 0:
		panic(http.ErrAbortHandler)
	case 302:
		rw.Header().Set("Location", w.api.URL+"/elsewhere")
	}
	rw.WriteHeader(status)
	io.WriteString(rw, body)
}

// apply is the API's usual behaviour. Names are unique within the tailnet.
func (w *world) apply(verb, id, name string) (int, string) {
	i := slices.IndexFunc(w.devices, func(d dev) bool { return d.NodeID == id })
	taken := slices.IndexFunc(w.devices, func(d dev) bool { return d.Name == name+suffix })
	switch {
	case verb == "list":
		b, _ := json.Marshal(map[string]any{"devices": w.devices})
		return 200, string(b)
	case i < 0:
		return 404, `{"message":"no such device"}`
	case verb == "delete":
		w.devices = slices.Delete(w.devices, i, i+1)
	case taken >= 0 && taken != i:
		return 400, `{"message":"name already in use"}`
	default:
		w.devices[i].Name = name + suffix
	}
	return 200, "{}"
}

// serveDNS is MagicDNS: it resolves the name to the device that has it now, or not at all if none has it.
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
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) == nil && len(m.Questions) == 1 {
				w.resolve(&m)
				answer, _ := m.Pack()
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
}

func (w *world) resolve(m *dnsmessage.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, address := m.Questions[0].Name, w.stale
	for _, d := range w.devices {
		if address == "" && d.Name+"." == name.String() {
			address = d.Addresses[len(d.Addresses)-1]
		}
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	if address == "" {
		m.RCode = dnsmessage.RCodeNameError
		w.misses++
		return
	}
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 600},
		Body:   &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()},
	}}
}
