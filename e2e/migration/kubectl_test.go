package migration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

// A call is one run of kubectl, and an answer is its result.
type call struct{ Args, Env []string }

type answer struct {
	Out, Err string
	Code     int
	Never    bool // it never answers
}

// fakeKubectl sends its arguments to the test and prints the answer that it gets.
func fakeKubectl() int {
	b, _ := json.Marshal(call{os.Args[1:], os.Environ()})
	resp, err := http.Post(os.Getenv("FAKE_CLUSTER"), "application/json", bytes.NewReader(b))
	a := answer{Code: 99}
	if err == nil {
		defer resp.Body.Close()
		err = json.NewDecoder(resp.Body).Decode(&a)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	fmt.Fprint(os.Stdout, a.Out)
	fmt.Fprint(os.Stderr, a.Err)
	return a.Code
}

// A cluster holds the objects of the namespace as kubectl prints them.
type cluster struct {
	mu      sync.Mutex
	objects []obj
	ids     []string          // the operator's devices
	cilium  string            // kube-proxy-replacement,bpf-lb-sock-hostns-only
	fails   map[string]answer // the key is a part of the command line
	onExec  func(*cluster)
	onGet   func(*cluster) // called before the objects are printed
	calls   []call
	writes  []string
}

type obj = map[string]any

const oldPod = "pod/" + bare + "-5d8f-x2b4c"

func newCluster() *cluster {
	c := &cluster{ids: []string{newID}, cilium: "true,true", fails: map[string]answer{}}
	for _, ref := range []string{
		"Namespace/" + bare, "Deployment/" + bare, "Pod/" + oldPod[len("pod/"):], "Service/" + bare, "ConfigMap/" + bare + "-config", "ConfigMap/kube-root-ca.crt",
		"Secret/tailscale-authkey", "Secret/ghcr-pull-secret", "ServiceAccount/default",
		"Deployment/oauth-proxy", "Pod/oauth-proxy-77c9-q8w7e", "Service/oauth-proxy", "ConfigMap/oauth-proxy-abc", "ServiceAccount/oauth-proxy",
	} {
		kind, name, _ := strings.Cut(ref, "/")
		labels := obj{}
		if strings.HasPrefix(name, "oauth-proxy") {
			labels["app.kubernetes.io/name"] = "oauth-proxy"
		}
		o := obj{"kind": kind, "metadata": obj{"name": name, "labels": labels, "annotations": obj{}}, "spec": obj{}, "status": obj{}}
		if kind == "Pod" {
			o["spec"] = obj{"containers": []obj{{"name": "proxy", "image": "ghcr.io/basher83/anthropic-oauth-proxy:latest"}, {"name": "sidecar", "image": "ghcr.io/tailscale/tailscale:stable"}}}
			o["status"] = obj{"conditions": []obj{{"type": "Ready", "status": "True"}}, "containerStatuses": []obj{{"restartCount": 0}, {"restartCount": 0}}}
		}
		c.objects = append(c.objects, o)
	}
	c.onExec = func(c *cluster) { c.restarts(1) }
	return c
}

func ref(o obj) string {
	return strings.ToLower(o["kind"].(string)) + "/" + o["metadata"].(obj)["name"].(string)
}

// at returns a part of an object, as in cluster.at("service/oauth-proxy", "spec").
func (c *cluster) at(name string, path ...string) obj {
	o := c.objects[slices.IndexFunc(c.objects, func(o obj) bool { return ref(o) == name })]
	for _, p := range path {
		o = o[p].(obj)
	}
	return o
}

func (c *cluster) annotate(name, key, value string) {
	c.at(name, "metadata", "annotations")[key] = value
}

func (c *cluster) restarts(n int) {
	c.at(oldPod, "status")["containerStatuses"].([]obj)[0]["restartCount"] = n
}

func (c *cluster) notReady() {
	c.at(oldPod, "status")["conditions"] = []obj{{"type": "Ready", "status": "False"}}
}

// gone removes objects from the cluster.
func (c *cluster) gone(names ...string) {
	c.objects = slices.DeleteFunc(c.objects, func(o obj) bool { return slices.Contains(names, ref(o)) })
}

func (c *cluster) changed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

func (c *cluster) serve(rw http.ResponseWriter, r *http.Request) {
	var in call
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		panic(err)
	}
	c.mu.Lock()
	c.calls = append(c.calls, in)
	a := c.kubectl(in.Args)
	c.mu.Unlock()
	if a.Never {
		<-r.Context().Done()
	}
	_ = json.NewEncoder(rw).Encode(a)
}

// kubectl answers the few commands that the program uses, and refuses all others.
func (c *cluster) kubectl(args []string) answer {
	line := strings.Join(args, " ")
	for part, a := range c.fails {
		if strings.Contains(line, part) {
			return a
		}
	}
	const ours = " --namespace=" + bare
	words := strings.Fields(strings.ReplaceAll(line, "--context=talos ", ""))
	switch {
	case strings.HasSuffix(line, "get namespace,deployment,pod,service,configmap,secret,serviceaccount"+ours+" --output=json"):
		if c.onGet != nil {
			c.onGet(c)
		}
		b, _ := json.Marshal(obj{"items": c.objects})
		return answer{Out: string(b)}
	case strings.Contains(line, "get secret --all-namespaces --selector=tailscale.com/managed=true,tailscale.com/parent-resource-type=svc,tailscale.com/parent-resource=oauth-proxy,tailscale.com/parent-resource-ns="+bare+" --output=jsonpath={range .items[*]}{.data.device_id}"):
		out := "\n" // the operator's config Secret has the labels too, but no device_id
		for _, id := range c.ids {
			out += base64.StdEncoding.EncodeToString([]byte(id)) + "\n"
		}
		return answer{Out: out}
	case strings.HasPrefix(line, "get configmap/cilium-config --namespace=kube-system --ignore-not-found --output=jsonpath={.data.kube-proxy-replacement},{.data.bpf-lb-sock-hostns-only}"):
		return answer{Out: c.cilium}
	case words[0] == "exec" && strings.HasSuffix(line, " -- /bin/sh -c kill -TERM 1"):
		c.writes = append(c.writes, line)
		c.onExec(c)
		return answer{}
	case words[0] == "delete" && line == "delete "+words[1]+ours+" --ignore-not-found":
		c.writes = append(c.writes, "delete "+words[1])
		c.gone(words[1])
		if words[1] == "deployment/"+bare {
			c.gone(oldPod)
		}
		return answer{}
	}
	return answer{Code: 1, Err: "this kubectl does not know: " + line}
}
