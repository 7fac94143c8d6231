package migration

import (
	"net/http"
	"testing"

	"gotest.tools/v3/assert"
)

// rollback must work without the cluster, so it never asks it.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.rename("nLAPTOPCNTRL", bare+"-test") // another device that answers like the new proxy
	w.devices[2].Addresses = []string{newIP}
	w.cluster.fails[""] = answer{Code: 1, Err: "Unable to connect to the server: dial tcp: i/o timeout"}
	w.run("rollback", "--dry-run").says(t, 0, "would rename "+bare+" ("+newID, "to "+bare+"-new", "would rename "+bare+"-old ("+oldID)
	w.untouched()
	w.run("rollback").says(t, 0, "ok    "+bare+suffix+" leads to "+oldIP, "measured: ")
	w.wrote(parkNew, giveOld)
	w.names("", "-new")
	w.run("rollback").says(t, 0, "nothing to do: the sidecar's device carries the name")
	assert.Equal(t, len(w.cluster.calls), 0)
}

// The usual reason to go back is that the new path fails. rollback must work above all then.
func TestRollbackFromADeadPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.newServer.dies()
	w.fail(&fault{call: giveOld, times: 1, status: 500})
	w.run("rollback").says(t, 0, "going back: ", "ok    it worked out in the end: ", "leads to "+oldIP)
	w.wrote(parkNew, giveOld+": 500", giveOld)
	w.names("", "-new")

	w = newWorld(t).swapped() // and if both are dead at the end
	w.newServer.dies()
	w.oldServer.does(func(rw http.ResponseWriter, r *http.Request) {
		if len(w.writes()) > 0 {
			panic(http.ErrAbortHandler)
		}
		oldProxy(rw, r)
	})
	w.run("rollback", "--watch=5s").says(t, 3, "has the name, but it does not answer", "run status")
	w.names("-old", "")
}

func TestRollbackRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.oldServer.dies()
	w.run("rollback").says(t, 1, "the name would lead to a dead address: the sidecar's device does not answer")
	w.oldServer.does(newProxy)
	w.run("rollback").says(t, 1, "is not the sidecar's device: it leads to the new proxy")
	w.rename(oldID, "elsewhere")
	w.run("rollback").says(t, 1, "there is nothing to go back to: no device is called "+bare+"-old")
	w.untouched()
}

func TestRollbackFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t).swapped()
	w.fail(&fault{call: giveOld, status: 500})
	w.run("rollback").says(t, 1, "going back: ", "ok    back: ", "leads to "+newIP)
	w.wrote(parkNew, giveOld+": 500", giveNew)
	w.names("-old", "")
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("status").says(t, 0,
		"the sidecar's device carries the name\n",
		"device  "+bare+" ("+oldID+", "+oldIP+", tag:proxy) leads to the old proxy",
		"device  "+bare+"-1 ("+newID+", "+newIP+", tag:k8s) leads to the new proxy",
		"pod     "+bare+"-5d8f-x2b4c, ready: true, 0 restarts", "next: preflight, then swap")
	w.cluster.ids = nil
	w.cluster.notReady()
	w.oldServer.dies()
	w.run("status").says(t, 0, "DOES NOT ANSWER", "ready: false", "next: preflight, then swap")
	w.untouched()
}

// Without the cluster, status tells the devices apart by their names and answers.
func TestStatusWithoutTheCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cluster.fails[""] = answer{Code: 1, Err: "E1127 memcache.go: couldn't get current server API group list\nUnable to connect to the server: dial tcp: i/o timeout\n"}
	w.run("status").says(t, 0, "the sidecar's device carries the name", "cluster UNREACHABLE: kubectl get", "--output=json: Unable to connect to the server: dial tcp: i/o timeout\n", "next: preflight, then swap")
	w.swapped()
	w.run("status").says(t, 0, "the operator's device carries the name", "next: cleanup; until then rollback undoes everything")
	w.newServer.dies()
	w.run("status").says(t, 0, "the operator's device carries the name", "DOES NOT ANSWER")
	w.newServer.does(newProxy)
	w.rename(newID, bare+"-1")
	w.run("status").says(t, 0, "NOBODY carries the name", "next: rollback, at once")
	w.rename(newID, bare)
	w.rename(oldID, "elsewhere")
	w.run("status").says(t, 0, "next: nothing, the migration is over")
	w.run("swap").says(t, 1, "Unable to connect to the server")
	w.cluster.fails[""] = answer{Never: true}
	w.run("status").says(t, 0, "cluster UNREACHABLE: ", "no answer within 15s")
	w.untouched()
}
