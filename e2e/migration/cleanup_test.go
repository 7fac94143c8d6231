package migration

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

const deleteOld = "delete " + oldID

// everything that belongs to the old pod, in the order in which it goes.
var oldObjects = []string{
	"delete service/" + bare,
	"delete configmap/" + bare + "-config",
	"delete secret/tailscale-authkey",
	"delete secret/ghcr-pull-secret",
	"delete serviceaccount/" + bare,
	"delete deployment/" + bare,
}

const endProxy = "exec old-1 proxy /bin/sh -c kill -TERM 1"

func TestCleanup(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(16 * time.Minute)

	w.run("cleanup", "--dry-run", "--watch=50ms").says(t, 0,
		"would send SIGTERM to the process in container proxy of pod old-1",
		"would delete service/"+bare, "would delete secret/tailscale-authkey", "would delete deployment/"+bare,
		"would delete the tailnet device "+bare+"-old ("+oldID)
	w.untouched()

	done := w.run("cleanup", "--watch=50ms")
	assert.Assert(t, !strings.Contains(done.out, "left  service/oauth-proxy"), done.out)
	done.says(t, 0,
		"ok    the old pod served nothing in the last 50ms",
		"sent SIGTERM to the old proxy process (container proxy)",
		"deleted deployment/"+bare, "deleted the tailnet device "+bare+"-old",
		"revoke the sidecar's auth key",
		"left  role.rbac.authorization.k8s.io/tailscale-state: not part of the new deployment")
	assert.DeepEqual(t, w.cluster.changed(), append([]string{endProxy}, oldObjects...))
	w.wrote(deleteOld)
	assert.Equal(t, w.name(newID), bare)

	w.run("cleanup").says(t, 0, "nothing to do: the old Deployment and the old device are gone")
	w.run("status").says(t, 0, "next: nothing: the migration is over")
	w.wrote(deleteOld)
}

// Each of these means that the old pod may still be needed: nothing is deleted.
func TestCleanupRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*world)
		says   string
	}{
		"the old device has the name": {func(w *world) {
			w.edit(newID, func(d *dev) { d.Name = bare + "-1" + suffix })
			w.edit(oldID, func(d *dev) { d.Name = bare + suffix })
		}, "not cleaned up: the sidecar's device carries the name"},
		"nobody has the name": {func(w *world) { w.edit(newID, func(d *dev) { d.Name = bare + "-1" + suffix }) },
			"not cleaned up: NOBODY carries the name"},
		"too early":  {func(w *world) { w.swapped(14 * time.Minute) }, "not cleaned up: the swap was 14m"},
		"the future": {func(w *world) { w.swapped(-time.Hour) }, "which is still to come; is this machine's clock right?"},
		"an unreadable time": {func(w *world) { w.cluster.annotate("deployment/"+bare, swappedAt, "yesterday") },
			"is not a time"},
		"the new path is not well": {func(w *world) { w.newServer.dies() }, "not cleaned up: the new path is not well"},
		"the new path is the old":  {func(w *world) { w.newServer.does(w.oldProxy) }, "not cleaned up: the new path is not well"},
		"the old pod serves": {func(w *world) {
			w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
				w.oldServer.served.Add(3)
				w.oldProxy(rw, r)
			})
		}, "not cleaned up: the old pod served 3 requests in the last 50ms"},
		"the old pod restarted meanwhile": {func(w *world) {
			w.oldServer.served.Store(9)
			w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
				w.oldServer.served.Add(-1)
				w.oldProxy(rw, r)
			})
		}, "not cleaned up: the old pod served -1 requests"},
		"its counter cannot be read": {func(w *world) { w.oldServer.dies() }, "whether the old pod still serves cannot be seen"},
		"its counter is not there":   {func(w *world) { w.oldServer.does(newProxy) }, "cannot be seen: /metrics answers 401"},
		"its metrics are not its own": {func(w *world) { w.oldServer.does(func(http.ResponseWriter, *http.Request) {}) },
			"/metrics does not mention proxy_requests_total"},
		"its device is not known": {func(w *world) { w.edit(oldID, func(d *dev) { d.Name = "elsewhere" + suffix }) },
			"the old pod is ready, but no device is called anthropic-oauth-proxy-old"},
		"which container": {func(w *world) {
			spec := w.cluster.at("deployment/"+bare, "spec", "template", "spec")
			spec["containers"] = append(spec["containers"].([]obj), obj{"name": "third", "image": "x"})
		}, "which container of the old pod is the proxy? Name it with --old-container: proxy, third"},
		"the process cannot be told": {func(w *world) { w.cluster.fails["exec "] = answer{Code: 126, Err: "no such file: /bin/sh"} },
			"nothing was deleted: the old proxy process could not be told to end"},
		"the process does not end": {func(w *world) { w.cluster.onExec = func(*cluster) {} },
			"nothing was deleted: the old proxy process did not end within 50ms of SIGTERM; run cleanup --no-signal"},
		"the pods cannot be read any more": {func(w *world) {
			w.cluster.onExec = func(c *cluster) { c.fails["get pods"] = answer{Code: 1, Err: "connection refused"} }
		}, "connection refused"},
		"the tailnet cannot be read": {func(w *world) { w.fail(&fault{call: "list", status: 401}) }, "TS_API_KEY is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).swapped(16 * time.Minute)
			tc.change(w)
			w.run("cleanup", "--watch=50ms").says(t, 1, tc.says)
			assert.DeepEqual(t, w.writes(), []string(nil))
			for _, change := range w.cluster.changed() {
				assert.Equal(t, change, endProxy) // which deletes nothing
			}
			w.secret()
		})
	}
}

func TestCleanupStartsTheClockOfASwapByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(0)
	delete(w.cluster.at("deployment/"+bare, "metadata", "annotations"), swappedAt)
	w.run("cleanup", "--dry-run").says(t, 1, "the clock starts now")
	w.untouched()
	w.run("cleanup").says(t, 1, "not cleaned up: nobody wrote down when the swap was, so the clock starts now; run cleanup again in 15m0s")
	assert.Equal(t, len(w.cluster.changed()), 1)
	w.run("cleanup").says(t, 1, "not cleaned up: the swap was ")
}

func TestCleanupOfAPodWithoutAShell(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.run("cleanup", "--watch=50ms", "--no-signal").says(t, 0, "deleted deployment/"+bare)
	assert.DeepEqual(t, w.cluster.changed(), oldObjects)
}

func TestCleanupOfANamedContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.cluster.onExec = func(c *cluster) { c.restarts("tailscaled", 1) }
	w.run("cleanup", "--watch=2s", "--old-container=tailscaled").says(t, 0, "sent SIGTERM to the old proxy process (container tailscaled)")
}

func TestCleanupOfADeadPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.oldServer.dies()
	w.cluster.at("pod/old-1", "status")["conditions"] = []obj{{"type": "Ready", "status": "False"}}
	w.run("cleanup").says(t, 0, "the old pod is not ready: it serves nobody")
	assert.DeepEqual(t, w.cluster.changed(), oldObjects)
	w.wrote(deleteOld)
}

// Objects that the new Deployment uses as well stay.
func TestCleanupSpares(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	spec := w.cluster.at("deployment/oauth-proxy", "spec", "template", "spec")
	spec["imagePullSecrets"] = []obj{{"name": "ghcr-pull-secret"}}
	w.cluster.at("deployment/"+bare, "spec", "template", "spec")["serviceAccountName"] = "default"
	w.run("cleanup", "--watch=50ms", "--no-signal").says(t, 0)
	assert.DeepEqual(t, w.cluster.changed(), []string{oldObjects[0], oldObjects[1], oldObjects[2], oldObjects[5]})
}

// What stops half way is taken up again.
func TestCleanupTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	w.cluster.fails["delete secret/tailscale-authkey"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
	w.run("cleanup", "--watch=50ms").says(t, 1, "stopped half way, nobody uses what is left", "run cleanup again")
	assert.DeepEqual(t, w.cluster.changed(), append([]string{endProxy}, oldObjects[:2]...))
	w.cluster.fails = map[string]answer{}
	w.cluster.onExec = func(c *cluster) { c.restarts("proxy", 2) }
	w.fail(&fault{call: deleteOld, times: 1, status: 501, body: `{"message":"cannot delete devices outside of your tailnet"}`})
	w.run("cleanup", "--watch=50ms").says(t, 1, "deleted deployment/"+bare, "the cluster is clean, the device record is left: ", "outside of your tailnet")
	w.cluster.fails["--output=name"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
	w.run("cleanup").says(t, 1, "deleted the tailnet device", "everything is done, only the look at what is left failed")
	w.wrote(deleteOld+": 501", deleteOld)
}

func TestCleanupInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped(time.Hour)
	r := w.start("cleanup")
	r.until("watching the old pod's proxy_requests_total for 1m0s")
	r.signal(syscall.SIGINT)
	r.wait().says(t, 1, "nothing was changed: ")
	w.untouched()

	w.cluster.onExec = func(*cluster) {} // the process goes on
	r = w.start("cleanup", "--watch=3s")
	r.until("sent SIGTERM")
	r.signal(syscall.SIGINT)
	r.wait().says(t, 1, "nothing was deleted: ")
	assert.DeepEqual(t, w.cluster.changed(), []string{endProxy})
}
