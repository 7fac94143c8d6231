package migration

import (
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
)

const (
	deleteOld = "delete " + oldID
	endProxy  = "exec " + bare + "-5d8f-x2b4c --namespace=" + bare + " --container=proxy -- /bin/sh -c kill -TERM 1"
)

// oldObjects are what belongs to the old pod, in the order in which cleanup deletes it.
var oldObjects = []string{"delete service/" + bare, "delete secret/tailscale-authkey", "delete secret/ghcr-pull-secret", "delete deployment/" + bare}

func TestCleanup(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.run("cleanup", "--dry-run").says(t, 0, "would watch the old pod for 15m0s, end its proxy process, delete service/"+bare, "the tailnet device "+bare+"-old ("+oldID)
	w.untouched()

	done := w.run("cleanup", "--watch=1s")
	done.says(t, 0,
		"ok    the old pod served nothing for 1s", "told the old proxy process to end (container proxy)",
		"deleted deployment/"+bare, "deleted the tailnet device "+bare+"-old", "revoke the sidecar's auth key",
		"left  configmap/"+bare+"-config: not part of the new deployment")
	assert.Equal(t, strings.Count(done.out, "left  "), 1, done.out)
	assert.DeepEqual(t, w.cluster.changed(), append([]string{endProxy}, oldObjects...))
	w.wrote(deleteOld)
	assert.Equal(t, w.name(newID), bare)

	w.run("cleanup").says(t, 0, "nothing to do: the old Deployment and the old device are gone")
	w.run("status").says(t, 0, "next: nothing, the migration is over")
	w.wrote(deleteOld)
}

// In each of these cases the old pod may still be needed, so nothing is deleted.
func TestCleanupRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*world)
		says   string
	}{
		"the old device has the name": {func(w *world) { w.rename(newID, bare+"-1"); w.rename(oldID, bare) }, "nothing was deleted: the sidecar's device carries the name"},
		"nobody has the name":         {func(w *world) { w.rename(newID, bare+"-1") }, "nothing was deleted: NOBODY carries the name"},
		"the new path is dead":        {func(w *world) { w.newServer.dies() }, "nothing was deleted: the new path does not work"},
		"the new path is the old":     {func(w *world) { w.newServer.does(oldProxy) }, "nothing was deleted: the new path does not work"},
		"it is rolled back meanwhile": {func(w *world) {
			w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
				w.rename(newID, bare+"-1")
				w.rename(oldID, bare)
				oldProxy(rw, r)
			})
		}, "nothing was deleted: the sidecar's device carries the name"},
		"its counter cannot be read":  {func(w *world) { w.oldServer.dies() }, "cannot tell whether the old pod still serves"},
		"its counter is not there":    {func(w *world) { w.oldServer.does(newProxy) }, "/metrics answers 401 Unauthorized without proxy_requests_total"},
		"its metrics are not its own": {func(w *world) { w.oldServer.does(func(http.ResponseWriter, *http.Request) {}) }, "/metrics answers 200 OK without"},
		"its device is not known":     {func(w *world) { w.rename(oldID, "elsewhere") }, "no device is called anthropic-oauth-proxy-old"},
		"which container": {func(w *world) {
			spec := w.cluster.at(oldPod, "spec")
			spec["containers"] = append(spec["containers"].([]obj), obj{"name": "third", "image": "x"})
		}, "which container of the old pod is the proxy? [proxy third]"},
		"the process cannot be told": {func(w *world) {
			w.cluster.fails["exec "] = answer{Code: 126, Err: "no such file: /bin/sh"}
		}, "no such file: /bin/sh\nend it by hand"},
		"the process does not end": {func(w *world) { w.cluster.onExec = func(*cluster) {} }, "the old proxy process does not end"},
		"the pods cannot be read any more": {func(w *world) {
			w.cluster.onExec = func(c *cluster) { c.fails["get "] = answer{Code: 1, Err: "connection refused"} }
		}, "connection refused"},
		"the tailnet cannot be read": {func(w *world) { w.fail(&fault{call: "list", status: 401, body: `{"message":"no"}`}) }, "list devices: no (401)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).swapped()
			tc.change(w)
			w.run("cleanup", "--watch=1s").says(t, 1, tc.says)
			w.wrote([]string(nil)...)
			for _, change := range w.cluster.changed() {
				assert.Equal(t, change, endProxy) // which deletes nothing
			}
		})
	}
}

// A request, a reset of the counter, or a counter that cannot be read: each restarts the wait.
func TestCleanupWaitsForSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	var reads atomic.Int64
	w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
		switch n := reads.Add(1); {
		case n == 4:
			panic(http.ErrAbortHandler)
		case n <= 8:
			counted(rw, r, 40+n%2)
		default:
			oldProxy(rw, r)
		}
	})
	r := w.start("cleanup", "--watch=3s")
	res := r.wait()
	res.says(t, 0, "ok    the old pod served nothing for 3s")
	assert.Equal(t, strings.Count(res.out, "the wait starts again"), 7, res.out)
	assert.Equal(t, strings.Count(res.out, "the old pod served a request: the wait"), 6, res.out)
}

// A client that keeps its connection busy never looks the name up again. Only the end of the old process makes it move.
func TestCleanupOfABusyClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	var served int64
	busy := true
	w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
		w.cluster.mu.Lock()
		defer w.cluster.mu.Unlock()
		if busy {
			served++
		}
		counted(rw, r, served)
	})
	w.cluster.onExec = func(c *cluster) {
		busy, served = false, 0
		c.restarts(1)
		c.onExec = backOff
	}
	w.run("cleanup", "--watch=1s").says(t, 0,
		"a client keeps the old pod busy: after 1s it still serves", "told the old proxy process to end (container proxy)",
		"ok    the old pod served nothing for 1s", "deleted the tailnet device "+bare+"-old")
	assert.DeepEqual(t, w.cluster.changed(), append([]string{endProxy, endProxy}, oldObjects...))
	w.wrote(deleteOld)
}

// backOff is what the kubelet does when a process ends soon after its start: it waits 10 s before it starts the container again. Here
// it waits for five calls of `kubectl get`.
func backOff(c *cluster) {
	c.notReady()
	looks := 0
	c.onGet = func(c *cluster) {
		if looks++; looks == 5 {
			c.restarts(2)
		}
	}
}

// A client that uses the old address itself comes back to it. A person has to find out which client that is.
func TestCleanupOfAClientThatComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	var reads atomic.Int64
	w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) { counted(rw, r, reads.Add(1)) })
	w.run("cleanup", "--watch=1s").says(t, 1, "nothing was deleted: the old pod still serves, 1s after its proxy process ended",
		"a client uses the address "+oldIP)
	assert.DeepEqual(t, w.cluster.changed(), []string{endProxy})
	w.wrote([]string(nil)...)
}

// If the new path does not work, the busy client has nowhere to go.
func TestCleanupKeepsABusyClientWithoutANewPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	var reads atomic.Int64
	w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
		if reads.Add(1) == 2 {
			w.newServer.dies()
		}
		counted(rw, r, reads.Load())
	})
	w.run("cleanup", "--watch=1s").says(t, 1, "nothing was deleted: the new path does not work")
	w.untouched()
}

func TestCleanupOfADeadPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.oldServer.dies()
	w.cluster.notReady()
	w.run("cleanup").says(t, 0, "the old pod is dead: it serves nobody")
	assert.DeepEqual(t, w.cluster.changed(), oldObjects)
	w.wrote(deleteOld)
}

// A cleanup that stopped half way can be run again.
func TestCleanupTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.cluster.fails["delete secret/tailscale-authkey"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
	w.run("cleanup", "--watch=1s").says(t, 1, "stopped half way, nobody uses what is left", "run cleanup again")
	assert.DeepEqual(t, w.cluster.changed(), []string{endProxy, oldObjects[0]})
	w.cluster.fails = map[string]answer{}
	w.cluster.onExec = func(c *cluster) { c.restarts(2) }
	w.fail(&fault{call: deleteOld, times: 1, status: 501, body: `{"message":"cannot delete devices outside of your tailnet"}`})
	w.run("cleanup", "--watch=1s").says(t, 1, "deleted deployment/"+bare, "the cluster is clean, only the tailnet device is left: ")
	w.oldServer.dies()
	w.run("cleanup").says(t, 0, "deleted the tailnet device")
	w.wrote(deleteOld+": 501", deleteOld)
}

func TestCleanupInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	r := w.start("cleanup")
	r.until("until it has not changed for 15m0s")
	r.signal(syscall.SIGINT)
	r.wait().says(t, 1, "nothing was deleted: ")
	w.untouched()
	w.run("rollback").says(t, 0)
}
